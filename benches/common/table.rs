//! What people read.

use std::fmt::Write as _;

/// Rows of percentiles; the first is what the others are compared with.
pub(crate) struct Table {
    pub(crate) text: String,
    first: Option<u64>,
}

impl Table {
    pub(crate) fn new(title: &str) -> Self {
        let mut text = String::new();
        let columns = ["p50", "p99", "more", "ratio", "cpu"];
        let [p50, p99, more, ratio, cpu] = columns.map(|column| format!("{column:>10}"));
        line(&mut text, &format!("\n{title} (µs)"));
        line(&mut text, &format!("{:10}{p50}{p99}{more}{ratio}{cpu}", ""));
        Self { text, first: None }
    }

    /// Adds `times` and `cpu`, in nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub(crate) fn row(&mut self, name: &str, mut times: Vec<u64>, cpu: Option<u64>) {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let first = *self.first.get_or_insert(at(50));
        let cpu = cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{:.1}", micros(cpu)));
        line(
            &mut self.text,
            &format!(
                "{name:10}{:>10.1}{:>10.1}{:>10.1}{:>10.2}{cpu:>10}",
                micros(at(50)),
                micros(at(99)),
                micros(at(50).saturating_sub(first)),
                at(50) as f64 / first as f64,
            ),
        );
    }
}

/// Adds `line` to `text`.
pub(crate) fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("memory takes all");
}

#[expect(clippy::print_stdout, reason = "this is what the bench is for")]
pub(crate) fn print(text: &str) {
    print!("{text}");
}
