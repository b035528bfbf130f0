use std::fmt;

/// A number of bytes, printed in the unit that suits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        if self.0 >= 1 << 30 {
            write!(f, "{:.2} GiB", bytes / 2_f64.powi(30))
        } else {
            write!(f, "{:.2} MiB", bytes / 2_f64.powi(20))
        }
    }
}
