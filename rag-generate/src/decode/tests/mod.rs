mod markov;
mod properties;
mod recorded;
