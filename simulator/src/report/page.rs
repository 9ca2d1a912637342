//! What every HTML page of a report has: one file, without anything from elsewhere.

use std::fmt::Write;

use serde_json::json;

/// A page of its own.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title>\n<style>\n{}</style></head>\n<body><main>{body}</main>\
         <div id=\"hint\" hidden></div>\n<script>\n{}</script></body></html>\n",
        escape(title),
        include_str!("style.css"),
        include_str!("hint.js"),
    )
}

/// Text within HTML, between tags or in an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// What is shown beside the pointer over a chart.
pub(super) struct Hint {
    /// `[samples]`: where they lie from left to right.
    pub(super) places: Vec<f64>,
    /// `[samples]`: what is written above.
    pub(super) times: Vec<String>,
    /// Name, colour and `[samples]` texts.
    pub(super) rows: Vec<(&'static str, &'static str, Vec<String>)>,
    /// From where to where the line under the pointer goes.
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Hint {
    /// As the script reads it.
    pub(super) fn json(&self) -> String {
        let places: Vec<f64> = self.places.iter().map(|x| (x * 10.0).round() / 10.0).collect();
        json!({"x": places, "t": self.times, "s": self.rows, "top": self.top, "bottom": self.bottom})
            .to_string()
    }
}

/// A key figure.
pub(super) struct Card {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) detail: String,
}

/// The key figures, side by side.
pub(super) fn cards(cards: &[Card]) -> String {
    let mut html = "<section class=\"cards\">".to_owned();
    for card in cards {
        let _ = write!(
            html,
            "<div class=\"card\"><span>{}</span><strong>{}</strong><small>{}</small></div>",
            escape(card.name),
            escape(&card.value),
            escape(&card.detail),
        );
    }
    html.push_str("</section>");
    html
}

/// A table. Columns whose heading begins with `>` hold figures.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = "<div class=\"scroll\"><table><thead><tr>".to_owned();
    for heading in headings {
        let figure = heading.starts_with('>');
        let heading = escape(heading.trim_start_matches('>'));
        let class = if figure { " class=\"figure\"" } else { "" };
        let _ = write!(html, "<th scope=\"col\"{class}>{heading}</th>");
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (heading, cell) in headings.iter().zip(row) {
            let class = if heading.starts_with('>') { " class=\"figure\"" } else { "" };
            let _ = write!(html, "<td{class}>{}</td>", escape(cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}
