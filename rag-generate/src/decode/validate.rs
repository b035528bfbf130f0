use super::config::GenerationConfig;
use super::error::DecodeError;

impl GenerationConfig {
    /// Checks that a search can run with these settings; every search does so first. `temperature` and `top_p` count
    /// only where `do_sample` is set.
    ///
    /// # Errors
    /// The first setting that does not hold.
    pub fn validate(&self) -> Result<(), DecodeError> {
        let demand = |holds: bool, setting, found, expected| match holds {
            true => Ok(()),
            false => Err(DecodeError::Setting {
                setting,
                found,
                expected,
            }),
        };
        let positive = |number: f64| number > 0.0 && number.is_finite();

        demand(
            self.num_beams >= 1,
            "num_beams",
            self.num_beams as f64,
            "1 (greedy) or more",
        )?;
        demand(
            self.num_return_sequences >= 1,
            "num_return_sequences",
            self.num_return_sequences as f64,
            "1 or more",
        )?;
        demand(
            self.max_new_tokens != Some(0),
            "max_new_tokens",
            0.0,
            "1 or more",
        )?;
        demand(
            self.longest() >= 2,
            "max_length",
            self.longest() as f64,
            "2 or more, since it counts the start token",
        )?;
        demand(
            self.length_penalty.is_finite(),
            "length_penalty",
            self.length_penalty,
            "finite; 0 turns it off",
        )?;
        demand(
            positive(self.repetition_penalty),
            "repetition_penalty",
            self.repetition_penalty,
            "above 0 and finite; 1 turns it off",
        )?;
        if self.do_sample {
            demand(
                positive(self.temperature),
                "temperature",
                self.temperature,
                "above 0 and finite; for greedy decoding set do_sample to false",
            )?;
            demand(
                self.top_p > 0.0 && self.top_p <= 1.0,
                "top_p",
                self.top_p,
                "a probability in (0, 1]; 1 turns it off",
            )?;
        }

        if let Some(min_new_tokens) = self.min_new_tokens {
            if self.shortest() > self.longest() {
                return Err(DecodeError::NewLengths {
                    min_new_tokens,
                    max_new_tokens: self.longest() - 1,
                });
            }
        } else if self.min_length > self.longest() {
            return Err(DecodeError::Lengths {
                min_length: self.min_length,
                max_length: self.longest(),
            });
        }
        let free_samples = self.do_sample && self.num_beams == 1;
        if self.num_return_sequences > self.num_beams && !free_samples {
            return Err(DecodeError::TooManySequences {
                wanted: self.num_return_sequences,
                kept: self.num_beams,
            });
        }
        if let Some(index) = self.bad_words_ids.iter().position(Vec::is_empty) {
            return Err(DecodeError::EmptyBadWord { index });
        }
        match self.stop_strings.iter().position(String::is_empty) {
            Some(index) => Err(DecodeError::EmptyStopString { index }),
            None => Ok(()),
        }
    }

    /// Checks that every token named is one of the model's, but for the start at a prompt's end.
    pub(super) fn check_vocabulary(&self, vocabulary: usize) -> Result<(), DecodeError> {
        let start = self.start_token()?;
        let at_prompt = self.decoder_start_token_id == Some(Self::PROMPT_END);
        let named = (!at_prompt)
            .then_some(("decoder_start_token_id", start))
            .into_iter()
            .chain(
                self.forced_bos_token_id
                    .map(|token| ("forced_bos_token_id", token)),
            )
            .chain(
                self.forced_eos_token_id
                    .iter()
                    .map(|&token| ("forced_eos_token_id", token)),
            )
            .chain(
                self.eos_token_id
                    .iter()
                    .map(|&token| ("eos_token_id", token)),
            )
            .chain(
                self.bad_words_ids
                    .iter()
                    .flatten()
                    .map(|&token| ("bad_words_ids", token)),
            );
        for (setting, token) in named {
            if token as usize >= vocabulary {
                return Err(DecodeError::UnknownToken {
                    setting,
                    token,
                    vocabulary,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_setting_that_does_not_hold() {
        let plain = GenerationConfig::default;
        let sampling = || GenerationConfig::sampling(0);
        let cases = [
            (plain().with_num_beams(0), "num_beams is 0"),
            (
                plain().with_num_return_sequences(0),
                "num_return_sequences is 0",
            ),
            (
                plain().with_num_return_sequences(3),
                "num_return_sequences is 3",
            ),
            (
                GenerationConfig::beams(2).with_num_return_sequences(3),
                "raise num_beams to at least 3",
            ),
            (
                sampling().with_num_beams(2).with_num_return_sequences(3),
                "raise num_beams to at least 3",
            ),
            (plain().with_max_length(1), "max_length is 1"),
            (plain().with_max_new_tokens(0), "max_new_tokens is 0"),
            (
                plain().with_max_length(5).with_min_length(6),
                "lower min_length",
            ),
            (
                plain().with_max_new_tokens(5).with_min_new_tokens(6),
                "min_new_tokens is 6, but answers end at 5 tokens",
            ),
            (
                plain().with_max_length(5).with_min_new_tokens(usize::MAX),
                "answers end at 4 tokens",
            ),
            (
                plain().with_stop_strings(["\n", ""]),
                "stop_strings[1] is empty",
            ),
            (
                plain().with_length_penalty(f64::NAN),
                "length_penalty is NaN",
            ),
            (
                plain().with_repetition_penalty(0.0),
                "repetition_penalty is 0",
            ),
            (sampling().with_temperature(0.0), "temperature is 0"),
            (sampling().with_top_p(0.0), "top_p is 0"),
            (sampling().with_top_p(1.5), "top_p is 1.5"),
            (
                plain().with_bad_words_ids([vec![1], vec![]]),
                "bad_words_ids[1] is empty",
            ),
        ];
        for (config, message) in cases {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        plain().with_temperature(0.0).validate().unwrap();
        plain()
            .with_max_length(5)
            .with_min_length(5)
            .validate()
            .unwrap();
        plain()
            .with_max_length(5)
            .with_min_length(6)
            .with_min_new_tokens(4)
            .validate()
            .unwrap();
        sampling().with_num_return_sequences(9).validate().unwrap();
    }

    #[test]
    fn names_the_token_that_the_model_lacks() {
        let config = GenerationConfig::default()
            .with_decoder_start_token_id(0)
            .with_eos_token_id(9);
        assert!(config.check_vocabulary(10).is_ok());
        let at_prompt = |config: GenerationConfig| {
            config.with_decoder_start_token_id(GenerationConfig::PROMPT_END)
        };
        assert!(at_prompt(config.clone()).check_vocabulary(10).is_ok());
        for elsewhere in [
            at_prompt(config.clone()).with_eos_token_id(GenerationConfig::PROMPT_END),
            at_prompt(config.clone()).with_bad_words_ids([vec![GenerationConfig::PROMPT_END, 1]]),
            GenerationConfig::default().with_bos_token_id(GenerationConfig::PROMPT_END),
        ] {
            assert!(matches!(
                elsewhere.check_vocabulary(10),
                Err(DecodeError::UnknownToken {
                    token: GenerationConfig::PROMPT_END,
                    ..
                })
            ));
        }
        let error = config.check_vocabulary(9).unwrap_err().to_string();
        assert!(error.contains("eos_token_id names token 9"), "{error}");
        assert!(matches!(
            GenerationConfig::default().check_vocabulary(9),
            Err(DecodeError::NoStartToken)
        ));
    }
}
