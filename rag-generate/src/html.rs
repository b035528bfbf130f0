//! Parts that the pages for a browser share. A page is one HTML file in UTF-8 that loads nothing else,
//! for light and dark screens and for print. `maud` escapes every text.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The CSS of all pages.
const STYLE: &str = include_str!("html.css");

/// The file of a page: its title as text, its body, and the CSS that it needs besides that of all pages.
pub fn page(title: &str, style: &str, body: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(style)) }
            }
            body { main { (body) } }
        }
        "\n"
    };
    page.into_string()
}

/// A CSS declaration that gives the n-th passage, or curve, its colour. Colours are the golden angle
/// apart, so that any number of them differ.
pub fn hue(n: usize) -> String {
    format!("--hue:{:.0}", (212.0 + 137.508 * n as f64) % 360.0)
}

/// The number of the passage at `rank` (counted from 0), in its colour.
pub fn badge(rank: usize) -> Markup {
    html! { i.badge { (rank + 1) } }
}

/// Two bars: P(z|x) and P(z|x,y) of a passage.
pub fn probabilities(prior: f32, posterior: f32) -> Markup {
    let bars = [
        ("P(z|x)", "before the answer is known", prior),
        ("P(z|x,y)", "given the answer", posterior),
    ];
    html! {
        @for (name, meaning, value) in bars {
            .bar title=(meaning) {
                span { (name) }
                span.track { span style={ "width:" (format_args!("{:.1}", 100.0 * value)) "%" } {} }
                span.number { (format_args!("{value:.3}")) }
            }
        }
    }
}
