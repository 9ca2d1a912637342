//! Line charts over virtual time, as SVG written by hand.

use std::fmt::Write;

use super::axis::{Axis, Scale};
use super::figures::{Unit, span};
use super::page::{Hint, escape};
use crate::span::Span;

/// The size of pictures; it is scaled to the room there is.
pub(super) const WIDTH: f64 = 560.0;
pub(super) const HEIGHT: f64 = 232.0;
/// The room that is left for labels.
pub(super) const LEFT: f64 = 62.0;
pub(super) const RIGHT: f64 = 16.0;
pub(super) const TOP: f64 = 12.0;
pub(super) const BOTTOM: f64 = 30.0;

/// One line of a chart.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// What it is.
    pub(super) name: &'static str,
    /// Which colour of the style sheet it has: `c1` to `c6`.
    pub(super) colour: &'static str,
    /// The figure that says most of it, beside its name in the legend.
    pub(super) summary: String,
    /// `[samples]`; `None` where there is no value.
    pub(super) values: Vec<Option<f64>>,
    /// Whether the room below the line is filled.
    pub(super) filled: bool,
}

/// A chart of lines over time.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    /// What it is called in links and tests.
    pub(super) id: &'static str,
    /// What it shows.
    pub(super) title: &'static str,
    /// How to read it.
    pub(super) note: &'static str,
    pub(super) unit: Unit,
    pub(super) scale: Scale,
    /// A value that the axis reaches at least, so that small values look small.
    pub(super) reaches: Option<f64>,
    /// `[samples]`
    pub(super) times: &'a [Span],
    pub(super) series: Vec<Series>,
}

impl Chart<'_> {
    /// The figure: title, note, legend and picture.
    pub(super) fn figure(&self) -> String {
        let mut html = format!("<figure class=\"card\" id=\"{}\"><figcaption>", self.id);
        let _ = write!(html, "<h3>{}</h3>", escape(self.title));
        if !self.note.is_empty() {
            let _ = write!(html, "<p class=\"note\">{}</p>", escape(self.note));
        }
        html.push_str("<ul class=\"legend\">");
        for series in &self.series {
            let (colour, name) = (series.colour, escape(series.name));
            let _ = write!(html, "<li class=\"{colour}\"><i></i>{name}");
            if !series.summary.is_empty() {
                let _ = write!(html, " <b>{}</b>", escape(&series.summary));
            }
            html.push_str("</li>");
        }
        html.push_str("</ul></figcaption>");
        html.push_str(&self.svg());
        html.push_str("</figure>");
        html
    }

    /// The picture alone.
    pub(super) fn svg(&self) -> String {
        let x = self.time_axis();
        let y = self.value_axis();
        let empty = self.series.iter().all(|s| s.values.iter().all(Option::is_none));
        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-text\"",
            id = self.id,
        );
        if !empty {
            let hint = self.hint(&x);
            let _ = write!(svg, " data-hint=\"{}\"", escape(&hint.json()));
        }
        let _ = write!(
            svg,
            "><title id=\"{id}-title\">{}</title><desc id=\"{id}-text\">{}</desc>",
            escape(self.title),
            escape(&self.description()),
            id = self.id,
        );
        self.grid(&x, &y, &mut svg);
        if empty {
            let (x, y) = (LEFT + plot_width() / 2.0, TOP + plot_height() / 2.0);
            let _ = write!(svg, "<text class=\"empty\" x=\"{x}\" y=\"{y}\">no data</text>");
        }
        for series in &self.series {
            self.line(series, &x, &y, &mut svg);
        }
        svg.push_str("</svg>");
        svg
    }

    fn time_axis(&self) -> Axis {
        let begin = self.times.first().copied().unwrap_or_default();
        let end = self.times.last().copied().unwrap_or_default();
        Axis::of_times(begin, end, LEFT, plot_width())
    }

    fn value_axis(&self) -> Axis {
        let values = self.series.iter().flat_map(|s| s.values.iter().copied().flatten());
        let values = values.chain(self.reaches);
        // There is no half of a pod.
        let step_min = if self.unit == Unit::Count { 1.0 } else { 0.0 };
        // Pictures count from the top.
        Axis::of_values(values, self.scale, step_min, TOP + plot_height(), -plot_height())
    }

    fn grid(&self, x: &Axis, y: &Axis, svg: &mut String) {
        let right = WIDTH - RIGHT;
        for tick in &y.ticks {
            let at = y.place(*tick);
            let label = escape(&self.unit.write(*tick));
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>\
                 <text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                LEFT - 8.0,
                at + 4.0,
            );
        }
        let bottom = TOP + plot_height();
        let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom:.1}H{right}\"/>");
        time_ticks(x, bottom, svg);
    }

    fn line(&self, series: &Series, x: &Axis, y: &Axis, svg: &mut String) {
        let points: Vec<Option<(f64, f64)>> = self
            .times
            .iter()
            .zip(&series.values)
            .map(|(at, value)| value.map(|v| (x.place(at.as_secs_f64()), y.place(v))))
            .collect();
        if series.filled {
            let d = area(&points, TOP + plot_height());
            let _ = write!(svg, "<path class=\"area {}\" d=\"{d}\"/>", series.colour);
        }
        let d = stroke(&points);
        let _ = write!(svg, "<path class=\"line {}\" d=\"{d}\"/>", series.colour);
    }

    fn hint(&self, x: &Axis) -> Hint {
        let written = |value: &Option<f64>| value.map_or("–".to_owned(), |v| self.unit.write(v));
        Hint {
            places: self.times.iter().map(|at| x.place(at.as_secs_f64())).collect(),
            times: self.times.iter().map(|at| span(*at)).collect(),
            rows: self
                .series
                .iter()
                .map(|s| (s.name, s.colour, s.values.iter().map(written).collect()))
                .collect(),
            top: TOP,
            bottom: TOP + plot_height(),
        }
    }

    /// The picture in words, for who does not see it.
    fn description(&self) -> String {
        let mut text = String::new();
        for series in &self.series {
            let values = || series.values.iter().copied().flatten();
            let name = series.name;
            let Some(last) = values().last() else {
                let _ = write!(text, "{name}: no data. ");
                continue;
            };
            let (low, high) = (values().fold(last, f64::min), values().fold(last, f64::max));
            let write = |value| self.unit.write(value);
            let _ = write!(
                text,
                "{name}: from {} to {}, {} at the end. ",
                write(low),
                write(high),
                write(last)
            );
        }
        text
    }
}

const fn plot_width() -> f64 {
    WIDTH - LEFT - RIGHT
}

const fn plot_height() -> f64 {
    HEIGHT - TOP - BOTTOM
}

/// Marks and labels of an axis of time below a picture.
pub(super) fn time_ticks(x: &Axis, bottom: f64, svg: &mut String) {
    for tick in &x.ticks {
        let at = x.place(*tick);
        let label = std::time::Duration::try_from_secs_f64(*tick).unwrap_or_default();
        let label = span(Span(u64::try_from(label.as_nanos()).unwrap_or(u64::MAX)));
        let (below, text) = (bottom + 4.0, bottom + 19.0);
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{at:.1} {bottom:.1}V{below:.1}\"/>\
             <text class=\"x\" x=\"{at:.1}\" y=\"{text:.1}\">{}</text>",
            if *tick == 0.0 { "0" } else { &label },
        );
    }
}

/// A line through the points, interrupted where there is none. A point that stands alone is a
/// line of no length, which round ends make a dot.
fn stroke(points: &[Option<(f64, f64)>]) -> String {
    let mut d = String::new();
    for run in runs(points) {
        for (at, (x, y)) in run.iter().enumerate() {
            let _ = write!(d, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        if run.len() == 1 {
            d.push_str("h0");
        }
    }
    d
}

/// The room between the points and the ground.
fn area(points: &[Option<(f64, f64)>], ground: f64) -> String {
    let mut d = String::new();
    for run in runs(points) {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { continue };
        let _ = write!(d, "M{first:.1} {ground:.1}");
        for (x, y) in &run {
            let _ = write!(d, "L{x:.1} {y:.1}");
        }
        let _ = write!(d, "L{last:.1} {ground:.1}Z");
    }
    d
}

fn runs(points: &[Option<(f64, f64)>]) -> Vec<Vec<(f64, f64)>> {
    let runs = points.split(Option::is_none).map(|run| run.iter().copied().flatten().collect());
    runs.filter(|run: &Vec<_>| !run.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(times: &[Span], values: Vec<Option<f64>>) -> Chart<'_> {
        Chart {
            id: "demo",
            title: "Demo <b>",
            note: "",
            unit: Unit::Percent,
            scale: Scale::Linear,
            reaches: Some(100.0),
            times,
            series: vec![Series {
                name: "CPU",
                colour: "c1",
                summary: String::new(),
                values,
                filled: true,
            }],
        }
    }

    /// The coordinates in the path of the class.
    fn path<'a>(svg: &'a str, class: &str) -> &'a str {
        let path = svg.split(&format!("class=\"{class}\" d=\"")).nth(1).unwrap();
        path.split('"').next().unwrap()
    }

    #[test]
    fn a_line_has_a_point_for_each_sample_where_its_value_lies() {
        let times: Vec<Span> = (0..=4).map(|i| Span::secs(i * 60)).collect();
        let values = [0.0, 25.0, 50.0, 100.0, 0.0].map(Some).to_vec();
        let svg = chart(&times, values).svg();
        // 62 to 544 are 0 to 240 s; 202 to 12 are 0 to 100 %.
        assert_eq!(
            path(&svg, "line c1"),
            "M62.0 202.0L182.5 154.5L303.0 107.0L423.5 12.0L544.0 202.0"
        );
        assert_eq!(
            path(&svg, "area c1"),
            "M62.0 202.0L62.0 202.0L182.5 154.5L303.0 107.0L423.5 12.0L544.0 202.0L544.0 202.0Z"
        );
        assert!(svg.contains(">100 %</text>") && svg.contains(">4m</text>"), "{svg}");
        assert!(svg.contains("<title id=\"demo-title\">Demo &lt;b&gt;</title>"));
        assert!(svg.contains("CPU: from 0 % to 100 %, 0 % at the end."));
        assert!(!svg.contains("no data"));
    }

    #[test]
    fn what_was_not_measured_interrupts_the_line() {
        let times: Vec<Span> = (0..=4).map(|i| Span::secs(i * 60)).collect();
        let svg = chart(&times, vec![Some(0.0), None, Some(50.0), Some(50.0), None]).svg();
        assert_eq!(path(&svg, "line c1"), "M62.0 202.0h0M303.0 107.0L423.5 107.0");
        assert!(svg.contains("&quot;–&quot;"));
    }

    #[test]
    fn nothing_to_show_is_said() {
        for (times, values) in [(vec![], vec![]), (vec![Span::secs(1)], vec![None])] {
            let svg = chart(&times, values).svg();
            assert!(svg.contains(">no data</text>"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(path(&svg, "line c1"), "");
        }
        let svg = chart(&[Span::secs(1)], vec![Some(5.0)]).svg();
        assert_eq!(path(&svg, "line c1"), "M62.0 192.5h0");
    }
}
