use std::panic::{AssertUnwindSafe, catch_unwind};

use pdf_extract::{Document, PlainTextOutput, output_doc_page};

/// The text of each page, or why it could not be read.
///
/// # Errors
/// Why the file is no PDF that can be read.
pub(super) fn pages(bytes: &[u8]) -> Result<Vec<Result<String, String>>, String> {
    let document = caught(|| {
        let mut document = Document::load_mem(bytes).map_err(|error| error.to_string())?;
        if document.is_encrypted() {
            let opened = document.decrypt("");
            opened.map_err(|_| "it is encrypted with a password".to_owned())?;
        }
        Ok(document)
    })?;
    let page = |number| {
        caught(|| {
            let mut text = String::new();
            output_doc_page(&document, &mut PlainTextOutput::new(&mut text), number)
                .map_err(|error| error.to_string())?;
            Ok(text)
        })
    };
    let numbers = caught(|| Ok(document.get_pages()))?.into_keys();
    Ok(numbers.map(page).collect())
}

/// The library gives up on some files by a panic.
fn caught<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("it is malformed".to_owned()))
}
