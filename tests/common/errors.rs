//! What every error has to say.

/// Words of messages that tell the reader what to do.
const ADVICE: [&str; 35] = [
    "ask ",
    "build ",
    "check ",
    "choose ",
    "copy ",
    "correct ",
    "do tokenizer and model",
    "does config.json",
    "download ",
    "encode ",
    "expected",
    "give ",
    "has to be",
    "is it a",
    "let it",
    "load ",
    "loosen ",
    "look at",
    "lower ",
    "mend ",
    "move ",
    "needs at least",
    "put ",
    "raise ",
    "remove ",
    "retrieve ",
    "save ",
    "set ",
    "shorten ",
    "split ",
    "store ",
    "try ",
    "use ",
    "wait ",
    "were both",
];

/// The message with its causes names each of `parts`, and says what to do.
pub fn says(error: &dyn std::error::Error, parts: &[&str]) {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message += &format!(": {cause}");
        source = cause.source();
    }
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(
        ADVICE.iter().any(|advice| message.contains(advice)),
        "no advice: {message}"
    );
}

/// The call fails with an error of the pattern, which [`says`] the parts.
#[allow(unused_macros)]
macro_rules! refuses {
    ($result:expr, $pattern:pat $(if $guard:expr)?, $($part:expr),+ $(,)?) => {
        match $result {
            Ok(_) => panic!("{} was taken", stringify!($result)),
            Err(error) => {
                assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
                $crate::common::errors::says(&error, &[$($part),+]);
            }
        }
    };
}

#[allow(unused_imports)]
pub(crate) use refuses;
