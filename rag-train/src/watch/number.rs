//! Numbers in JSON and in print.

use serde::{Deserialize, Deserializer};

/// A number that JSON may hold as `null`: it has no word for those that are not finite.
pub(super) fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// A number to read: four significant digits, no trailing zeros, thousands apart.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e9 || size > 0.0 && size < 1e-3 {
        let (digits, exponent) = split_exponent(value);
        return format!("{}e{exponent}", trimmed(digits));
    }
    let decimals = match size {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        1.0.. => 3,
        _ => 4,
    };
    let text = trimmed(format!("{value:.decimals$}"));
    match text.parse() {
        Ok(whole) if size >= 10_000.0 => count(whole),
        _ => text,
    }
}

/// A count with thousands apart, by a narrow space that does not break.
pub(super) fn count(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn split_exponent(value: f64) -> (String, String) {
    let text = format!("{value:.3e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (digits.to_owned(), exponent.to_owned())
}

fn trimmed(text: String) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [
            (0.0, "0"),
            (3e-5, "3e-5"),
            (1.2346e-7, "1.235e-7"),
            (0.25, "0.25"),
            (0.001, "0.001"),
            (12.345, "12.35"),
            (100.0, "100"),
            (9_999.6, "10000"),
            (12_345.6, "12\u{202f}346"),
            (-2.5, "-2.5"),
            (4e9, "4e9"),
        ];
        for (value, expected) in shown {
            assert_eq!(short(value), expected, "{value}");
        }
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1\u{202f}000");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
