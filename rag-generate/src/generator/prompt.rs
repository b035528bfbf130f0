/// The parts of a context, which a [`Family`](super::Family) puts in order and tokenizes.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// What is asked, whole.
    pub question: &'a str,
    /// Title of the passage.
    pub title: &'a str,
    /// Text of the passage, or its beginning where the whole does not fit.
    pub text: &'a str,
    /// Before everything, such as T5's task prefix.
    pub prefix: &'a str,
    /// Between title and text.
    pub title_separator: &'a str,
    /// Between passage and question.
    pub question_separator: &'a str,
}

impl Prompt<'_> {
    /// `title / text // question` in one text, as the reference implementation packs it.
    pub fn joined(&self) -> String {
        let Self {
            question,
            title,
            text,
            prefix,
            title_separator,
            question_separator,
        } = self;
        let passage = format!("{prefix}{title}{title_separator}{text}{question_separator}");
        // The separators bring spaces of their own.
        format!("{}{question}", passage.replace("  ", " "))
    }
}
