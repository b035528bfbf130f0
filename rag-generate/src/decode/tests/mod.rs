mod markov;
mod properties;
mod recorded;
mod stops;
