//! What pages to read in a browser are made of: one HTML file in UTF-8 that needs nothing else, for light
//! and dark screens and for print.

use std::fmt::{self, Display, Write};

/// A page with a `title` in plain text and a `body` in HTML; `style` is CSS besides [`STYLE`].
pub fn page(title: &str, style: &str, body: impl Display) -> String {
    format!(
        "<!doctype html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        Escaped(title)
    )
}

/// Text in HTML, in elements as in quoted attributes.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The colour of the n-th passage, or curve, as a CSS declaration: steps of the golden angle keep any
/// number of them apart.
#[derive(Clone, Copy, Debug)]
pub struct Hue(pub usize);

impl Display for Hue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--hue:{:.0}", (212.0 + 137.508 * self.0 as f64) % 360.0)
    }
}

/// A probability as a bar: its `name`, its `meaning` where pointed at, its value from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Bar<'a>(pub &'a str, pub &'a str, pub f32);

impl Display for Bar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, meaning, value) = self;
        writeln!(
            f,
            "<div class=\"bar\" title=\"{}\"><span>{}</span><span class=\"track\">\
             <span style=\"width:{:.1}%\"></span></span><span class=\"number\">{value:.3}</span></div>",
            Escaped(meaning),
            Escaped(name),
            100.0 * value
        )
    }
}

/// The look of all pages.
pub const STYLE: &str = r#":root { color-scheme: light dark; --ink: #1c2127; --soft: #5b6472; --line: #d8dde4; --page: #f7f8f9; --card: #fff; --deep: 38%; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4b1; --line: #3a424d; --page: #15191e; --card: #1d2228; --deep: 62%; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.2rem; font-weight: 600; margin: 0 0 .75rem; }
h2 { font-size: .95rem; font-weight: 600; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .875rem; }
.number { font-variant-numeric: tabular-nums; text-align: right; min-width: 3.5rem; }
.badge { display: inline-block; min-width: 1.4rem; padding: 0 .3rem; border-radius: .7rem; background: hsl(var(--hue) 70% 36%); color: #fff; font: 600 .8rem/1.4rem system-ui, sans-serif; text-align: center; }
.bar { display: grid; grid-template-columns: 4.5rem 1fr 3.5rem; gap: .6rem; align-items: center; font-size: .8rem; color: var(--soft); }
.track { height: .5rem; border-radius: .25rem; background: hsl(var(--hue) 50% 50% / .15); overflow: hidden; }
.track span { display: block; height: 100%; background: hsl(var(--hue) 70% var(--deep)); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; }
th:first-child { text-align: left; }
@media print { body { background: none; } .bar, .badge, .track { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"#;
