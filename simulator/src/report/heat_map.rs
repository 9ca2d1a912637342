//! The heat map: a row for each node, a column for each moment, darker the fuller.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use super::axis::Axis;
use super::chart::time_ticks;
use super::figures::span;
use super::page::escape;
use crate::outcome::HeatMap;
use crate::span::Span;

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 150.0;
const TOP: f64 = 6.0;
/// How high all rows together and one row may be.
const HEIGHT_MAX: f64 = 420.0;
const ROW_MAX: f64 = 20.0;
/// The room a node's name needs.
const NAME_HEIGHT: f64 = 13.0;
/// Percent where there was no node.
const ABSENT: u8 = u8::MAX;

/// The figure: title, scale and picture.
pub(super) fn figure(map: &HeatMap, nodes: u64) -> String {
    let mut html = "<figure class=\"card\" id=\"heat\"><figcaption>\
                    <h3>CPU requested on each node</h3>"
        .to_owned();
    let shown = map.nodes.len() as u64;
    let which = if shown < nodes {
        format!("{shown} of {nodes} nodes, evenly chosen; a row is a node.")
    } else {
        "A row is a node.".to_owned()
    };
    let _ = write!(html, "<p class=\"note\">{which}</p>{}</figcaption>", ramp());
    html.push_str(&svg(map));
    html.push_str("</figure>");
    html
}

/// What the colours mean.
fn ramp() -> String {
    let mut html = "<ul class=\"legend\"><li><span class=\"ramp\">0 %<svg viewBox=\"0 0 154 12\" \
                    aria-hidden=\"true\">"
        .to_owned();
    for level in 0..=10 {
        let _ = write!(html, "<path class=\"h{level}\" d=\"M{} 0h14v12h-14z\"/>", 14 * level);
    }
    html.push_str(
        "</svg>100 %</span></li><li><span class=\"ramp\"><svg viewBox=\"0 0 14 12\" \
         style=\"width:14px\" aria-hidden=\"true\"><path class=\"away\" d=\"M0 0h14v12h-14z\"/>\
         </svg>not there</span></li></ul>",
    );
    html
}

/// The picture alone.
fn svg(map: &HeatMap) -> String {
    let rows = map.nodes.len();
    let height = (HEIGHT_MAX / rows.max(1) as f64).min(ROW_MAX);
    let bottom = TOP + if rows == 0 { 60.0 } else { height * rows as f64 };
    let begin = map.times.first().copied().unwrap_or_default();
    let last = map.times.last().copied().unwrap_or_default();
    let apart = map.times.get(1).map_or(Span::secs(1), |t| Span(t.0.saturating_sub(begin.0)));
    let x = Axis::of_times(begin, Span(last.0 + apart.0), LEFT, WIDTH - LEFT - 16.0);
    let width = (WIDTH - LEFT - 16.0) / map.times.len().max(1) as f64;
    let mut svg = format!(
        "<svg class=\"heat\" viewBox=\"0 0 {WIDTH} {:.1}\" role=\"img\" \
         aria-labelledby=\"heat-title heat-text\"",
        bottom + 30.0
    );
    if rows > 0 {
        let hint = hint(map, width, height);
        let _ = write!(svg, " data-heat=\"{}\"", escape(&hint));
    }
    let _ = write!(
        svg,
        "><title id=\"heat-title\">CPU requested on each node</title>\
         <desc id=\"heat-text\">{rows} nodes at {} moments, in percent of their CPU.</desc>",
        map.times.len()
    );
    if rows == 0 || map.times.is_empty() {
        let _ = write!(
            svg,
            "<text class=\"empty\" x=\"{}\" y=\"{}\">no data</text>",
            WIDTH / 2.0,
            TOP + 35.0
        );
    }
    for (class, d) in cells(map, width, height) {
        let _ = write!(svg, "<path class=\"{class}\" d=\"{d}\"/>");
    }
    let stride = (NAME_HEIGHT / height).ceil().max(1.0);
    let mut next = 0.0;
    for (row, name) in map.nodes.iter().enumerate() {
        let row = row as f64;
        if row >= next {
            next = row + stride;
            let y = TOP + (row + 0.5) * height + 4.0;
            let _ = write!(
                svg,
                "<text class=\"name\" x=\"{}\" y=\"{y:.1}\">{}</text>",
                LEFT - 8.0,
                escape(&shortened(name))
            );
        }
    }
    time_ticks(&x, bottom, &mut svg);
    svg.push_str("</svg>");
    svg
}

/// For each colour the outline of all its cells; neighbours of a row are one rectangle, which
/// makes the file a tenth as large.
fn cells(map: &HeatMap, width: f64, height: f64) -> BTreeMap<String, String> {
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    for row in 0..map.nodes.len() {
        let levels: Vec<String> =
            map.cpu_percent.iter().map(|column| class(column.get(row).copied())).collect();
        let y = TOP + row as f64 * height;
        let below = TOP + (row + 1) as f64 * height;
        let mut at = 0;
        for run in levels.chunk_by(|a, b| a == b) {
            let x = LEFT + at as f64 * width;
            at += run.len();
            // Edges, not widths: what is rounded alike leaves no gaps between neighbours.
            let right = LEFT + at as f64 * width;
            let path = paths.entry(run[0].clone()).or_default();
            let _ = write!(path, "M{x:.1} {y:.1}H{right:.1}V{below:.1}H{x:.1}Z");
        }
    }
    paths
}

fn class(percent: Option<u8>) -> String {
    match percent {
        None | Some(ABSENT) => "away".to_owned(),
        Some(percent) => format!("h{}", (u32::from(percent.min(100)) + 5) / 10),
    }
}

/// What the script needs: names, times and two hexadecimal digits a cell.
fn hint(map: &HeatMap, width: f64, height: f64) -> String {
    let row = |row: usize| {
        let cells = map.cpu_percent.iter().map(|c| c.get(row).copied().unwrap_or(ABSENT));
        cells.fold(String::new(), |mut text, cell| {
            let _ = write!(text, "{cell:02x}");
            text
        })
    };
    json!({
        "left": LEFT, "top": TOP, "width": width, "height": height,
        "nodes": map.nodes,
        "times": map.times.iter().map(|t| span(*t)).collect::<Vec<_>>(),
        "rows": (0..map.nodes.len()).map(row).collect::<Vec<_>>(),
    })
    .to_string()
}

/// A name that fits; the end tells more than the beginning.
pub(super) fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= 20 {
        return name.to_owned();
    }
    format!("…{}", name.chars().skip(length - 19).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> HeatMap {
        HeatMap {
            nodes: vec!["a".to_owned(), "b<".to_owned()],
            times: (0..4).map(|i| Span::secs(i * 10)).collect(),
            cpu_percent: vec![vec![0, 255], vec![0, 50], vec![97, 54], vec![97, 130]],
        }
    }

    #[test]
    fn each_cell_has_the_colour_of_its_value() {
        let cells = cells(&map(), 10.0, 20.0);
        let shown: Vec<(&str, &str)> =
            cells.iter().map(|(class, d)| (class.as_str(), d.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("away", "M150.0 26.0H160.0V46.0H150.0Z"),
                ("h0", "M150.0 6.0H170.0V26.0H150.0Z"),
                ("h10", "M170.0 6.0H190.0V26.0H170.0ZM180.0 26.0H190.0V46.0H180.0Z"),
                ("h5", "M160.0 26.0H180.0V46.0H160.0Z"),
            ]
        );
    }

    #[test]
    fn the_picture_says_what_it_shows() {
        let html = figure(&map(), 5_000);
        assert!(html.contains("2 of 5000 nodes"), "{html}");
        assert!(html.contains(">b&lt;</text>") && html.contains(">40s</text>"), "{html}");
        assert!(html.contains("&quot;00006161&quot;"), "{html}");
        let empty = figure(&HeatMap::default(), 0);
        assert!(empty.contains("no data") && !empty.contains("NaN"), "{empty}");
        assert_eq!(shortened("a-node-with-a-very-long-name-17"), "…a-very-long-name-17");
    }
}
