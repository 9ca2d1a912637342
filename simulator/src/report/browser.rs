//! Pages looked at with a real browser: what the charts draw must be seen on a screenshot.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::{Soak, comparison_html, demo, html};
use crate::compare::Comparison;
use crate::outcome::Outcome;
use crate::scenario::Scenario;
use crate::world::World;

/// The window is as high as no page, so that a screenshot has all of it.
const WINDOW: &str = "--window-size=1280,5000";
/// A mark of fewer pixels nobody sees.
const PIXELS_MIN: usize = 60;
/// Asks the browser where each picture is and which colours its marks have.
const PROBE: &str = r#"<script type="application/json" id="probe"></script><script>
  const pictures = [...document.querySelectorAll("figure > svg")].map((svg) => {
    const box = svg.getBoundingClientRect();
    const colours = new Set();
    for (const mark of svg.querySelectorAll(".line, .bar, circle, .heat > path:not(.axis)")) {
      const style = getComputedStyle(mark);
      colours.add(mark.matches(".line") ? style.stroke : style.fill);
    }
    return {
      figure: svg.parentElement.id, colours: [...colours],
      area: [box.left, box.top, box.right, box.bottom].map(Math.round),
    };
  });
  document.getElementById("probe").textContent = "PROBE" + JSON.stringify(pictures) + "EBORP";
</script></body>"#;

/// A picture of the page.
#[derive(Debug, Deserialize)]
struct Picture {
    figure: String,
    /// `rgb(37, 99, 217)`
    colours: Vec<String>,
    /// Left, top, right, bottom in pixels.
    area: [u32; 4],
}

/// A decoded screenshot.
struct Screen {
    width: u32,
    rgb: Vec<[u8; 3]>,
}

impl Screen {
    fn read(png: &Path) -> Self {
        let file = std::io::BufReader::new(std::fs::File::open(png).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!(info.bit_depth, png::BitDepth::Eight);
        let samples = info.color_type.samples();
        assert!(samples >= 3, "{:?}", info.color_type);
        let pixels = bytes[..info.buffer_size()].chunks_exact(samples);
        Self { width: info.width, rgb: pixels.map(|p| [p[0], p[1], p[2]]).collect() }
    }

    /// Pixels of the colour within the area.
    fn count(&self, area: [u32; 4], colour: [u8; 3]) -> usize {
        let [left, top, right, bottom] = area;
        let row = |y: u32| {
            let begin = (y * self.width + left) as usize;
            let end = (y * self.width + right.min(self.width)) as usize;
            self.rgb.get(begin..end).unwrap_or_default()
        };
        let same = |pixel: &&[u8; 3]| pixel.iter().zip(colour).all(|(p, c)| p.abs_diff(c) <= 4);
        (top..bottom).map(|y| row(y).iter().filter(same).count()).sum()
    }
}

/// The browser's name, if there is one; there must be one where CI runs.
#[expect(clippy::print_stderr, reason = "who runs the tests without a browser should know")]
fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let works = |name: &&str| {
        let output = Command::new(name).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = names.into_iter().find(works);
    if found.is_none() {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "install chromium: CI must look at the charts");
        eprintln!("not looked at: there is no chromium");
    }
    found
}

/// What is on the page, and how it looks.
fn look(browser: &str, page: &str) -> (Vec<Picture>, Screen) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, page.replace("</body>", PROBE)).unwrap();
    let png = folder.path().join("page.png");
    let run = |what: &str| {
        // Without the sandbox it runs as root too; the page is ours.
        let output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--hide-scrollbars", "--force-device-scale-factor=1", WINDOW])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(what)
            .arg(&file)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{browser} {what}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    let dom = run("--dump-dom");
    // The names of the marks are in the script itself, too; what it wrote comes first.
    let probe = dom.split("PROBE[").nth(1).expect("the script ran");
    let probe = format!("[{}", probe.split("EBORP").next().unwrap());
    let pictures = serde_json::from_str(&probe.replace("&gt;", ">")).expect(&probe);
    run(&format!("--screenshot={}", png.display()));
    (pictures, Screen::read(&png))
}

fn rgb(colour: &str) -> [u8; 3] {
    let numbers = colour.trim_start_matches("rgb(").trim_end_matches(')').split(',');
    let numbers: Vec<u8> = numbers.map(|n| n.trim().parse().expect(colour)).collect();
    numbers.try_into().expect(colour)
}

/// Each colour of each picture with the number of its pixels.
fn seen(pictures: &[Picture], screen: &Screen) -> Vec<(String, String, usize)> {
    let mut seen = Vec::new();
    for picture in pictures {
        for colour in &picture.colours {
            let pixels = screen.count(picture.area, rgb(colour));
            seen.push((picture.figure.clone(), colour.clone(), pixels));
        }
    }
    seen
}

fn assert_all_seen(browser: &str, page: &str, figures: &[&str]) {
    let (pictures, screen) = look(browser, page);
    let found: Vec<&str> = pictures.iter().map(|p| p.figure.as_str()).collect();
    assert_eq!(found, figures);
    for picture in &pictures {
        assert!(!picture.colours.is_empty(), "{} draws nothing", picture.figure);
    }
    for (figure, colour, pixels) in seen(&pictures, &screen) {
        assert!(pixels >= PIXELS_MIN, "{figure}: {pixels} pixels of {colour}");
    }
}

#[test]
fn the_charts_of_a_run_are_not_empty() {
    let Some(browser) = browser() else { return };
    let figures = [
        "utilisation",
        "stranded",
        "pending",
        "running",
        "nodes",
        "evictions",
        "writes",
        "latency",
        "distribution",
        "heat",
        "rollouts",
    ];
    assert_all_seen(browser, &html(&demo::outcome(8)), &figures);
}

/// What is made up has all that a page can show; a run of a cluster has what there is. A line may be
/// short there: pods are bound now and then.
#[test]
fn the_charts_of_a_simulated_cluster_are_not_empty() {
    let Some(browser) = browser() else { return };
    let (pictures, screen) = look(browser, &html(&simulated()));
    assert_eq!(pictures.len(), 11);
    for picture in pictures {
        let pixels: Vec<usize> =
            picture.colours.iter().map(|colour| screen.count(picture.area, rgb(colour))).collect();
        let figure = &picture.figure;
        assert!(pixels.iter().sum::<usize>() >= PIXELS_MIN, "{figure}: {pixels:?}");
        assert!(pixels.iter().all(|pixels| *pixels >= PIXELS_MIN / 3), "{figure}: {pixels:?}");
    }
}

/// What the example of the guide comes to: an inventory that is filled, and a host that fails.
fn simulated() -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/capacity.toml");
    let scenario = Scenario::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut world = World::with_checks(scenario.expand(1).unwrap(), Vec::new()).unwrap();
    world.run();
    world.outcome()
}

#[test]
fn the_pictures_of_a_comparison_and_of_a_soak_are_not_empty() {
    let Some(browser) = browser() else { return };
    let pairs: Vec<_> = (1..=5).map(|s| (demo::outcome(s), demo::denser(s))).collect();
    let page = comparison_html(&Comparison::of(&pairs), &pairs);
    let figures = ["intervals", "cpu", "stranded", "pending", "used", "latency", "evictions"];
    assert_all_seen(browser, &page, &figures);
    let outcomes: Vec<Outcome> = (0..100).map(demo::outcome).collect();
    assert_all_seen(browser, &Soak::of(&outcomes).html(), &["runs"]);
}

/// What would make the tests above worthless: that they see charts where there are none.
#[test]
fn empty_charts_are_seen_to_be_empty() {
    let Some(browser) = browser() else { return };
    let (pictures, screen) = look(browser, &html(&Outcome::default()));
    assert_eq!(pictures.len(), 11);
    let seen = seen(&pictures, &screen);
    assert!(seen.len() >= 13, "{seen:?}");
    for (figure, colour, pixels) in seen {
        // The edges of letters have colours between those of the text and of the ground.
        assert!(pixels < PIXELS_MIN, "{figure}: {pixels} pixels of {colour}");
    }
}
