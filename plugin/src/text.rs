//! How things are said on a terminal: tables, colours, ages. Colours are always written; the stream drops them where none are wanted.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

/// What a text is to its reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Head,
    Good,
    Bad,
    Faint,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Head => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

/// A text in its tone.
pub fn toned(tone: Tone, text: &str) -> String {
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

/// One field of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }

    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// Columns as wide as their widest field, two spaces between, the last one as it is.
pub fn table(head: &[&str], rows: &[Vec<Cell>]) -> String {
    let head = head.iter().map(|name| Cell::new(Tone::Head, *name)).collect::<Vec<_>>();
    let rows: Vec<_> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut padding = 0;
        for (cell, width) in row.iter().zip(&widths) {
            // Padding before a field only, so that no line ends in spaces.
            let shown = if cell.text.is_empty() { String::new() } else { toned(cell.tone, &cell.text) };
            let _ = write!(text, "{}{shown}", if shown.is_empty() { String::new() } else { " ".repeat(padding) });
            let used = cell.text.chars().count();
            padding = if shown.is_empty() { padding } else { 0 } + width - used + 2;
        }
        text.push('\n');
    }
    text
}

/// An age as kubectl has it: 45s, 3m, 5h, 2d.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
pub mod tests {
    use rstest::rstest;

    use super::*;

    /// Without colours.
    pub fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        let rows = [
            vec![Cell::new(Tone::Good, "a"), Cell::plain("é"), Cell::plain("x")],
            vec![Cell::plain("longer"), Cell::plain(""), Cell::plain("y")],
            vec![Cell::plain("b"), Cell::plain("two"), Cell::plain("")],
        ];
        let expected = "ONE     TWO  THREE\na       é    x\nlonger       y\nb       two\n";
        assert_eq!(bare(&table(&["ONE", "TWO", "THREE"], &rows)), expected);
    }

    #[rstest]
    #[case(-3, "0s")]
    #[case(119, "119s")]
    #[case(120, "2m")]
    #[case(7200, "2h")]
    #[case(172_800, "2d")]
    fn ages(#[case] seconds: i64, #[case] text: &str) {
        assert_eq!(age(seconds), text);
    }
}
