//! Pages: a list is asked for one entry more than a page has, and that entry tells whether there is a next page.

/// How many entries to ask for.
pub fn asked(limit: i64) -> i64 {
    limit.saturating_add(1)
}

/// Cuts what was found down to a page; where the next page begins, if there is one, is said of the page's last entry.
pub fn cut<T, Position>(found: &mut Vec<T>, limit: i64, position: impl FnOnce(&T) -> Position) -> Option<Position> {
    let length = usize::try_from(limit).unwrap_or(0);
    if found.len() <= length {
        return None;
    }
    found.truncate(length);
    found.last().map(position)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 0, None)]
    #[case(1, 1, None)]
    #[case(3, 3, None)] // the list ends with the page
    #[case(4, 3, Some(2))]
    fn the_entry_after_the_page_says_that_there_is_another(
        #[case] there_are: usize,
        #[case] on_the_page: usize,
        #[case] last: Option<usize>,
    ) {
        let mut found: Vec<usize> = (0..there_are).take(usize::try_from(asked(3)).unwrap()).collect();
        assert_eq!(cut(&mut found, 3, |entry| *entry), last);
        assert_eq!(found.len(), on_the_page);
    }
}
