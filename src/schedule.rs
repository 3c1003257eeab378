//! Learning-rate schedules: what the base rate is multiplied by.

use crate::hyper::{HyperError, require};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How the learning rate changes. Written `constant`, `cosine`, `step:EVERY:FACTOR` or `plateau:PATIENCE:FACTOR`.
///
/// ```
/// use rectify::schedule::Schedule;
/// assert_eq!("step:10:0.1".parse(), Ok(Schedule::Step { every: 10, factor: 0.1 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// Always the base rate.
    #[default]
    Constant,
    /// Half a cosine from the base rate at the first step to zero after the last.
    Cosine,
    /// Multiplied by `factor` after every `every` epochs.
    Step {
        /// Epochs between the changes.
        every: u32,
        /// What the rate is multiplied by.
        factor: f32,
    },
    /// Multiplied by `factor` when the training loss has not fallen below its lowest value for `patience` epochs (He
    /// et al. 2015, section 4, switch "when the error plateaus").
    Plateau {
        /// Epochs without improvement that are waited for.
        patience: u32,
        /// What the rate is multiplied by.
        factor: f32,
    },
}

/// What a schedule remembers between epochs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What [`Schedule::Plateau`] has multiplied the rate by so far.
    pub factor: f32,
    /// The lowest training loss so far.
    pub best: Option<f64>,
    /// Epochs since then.
    pub waited: u32,
}

impl Default for State {
    fn default() -> State {
        State { factor: 1.0, best: None, waited: 0 }
    }
}

impl Schedule {
    /// Refuses zero epochs and factors outside `(0, 1]`.
    ///
    /// # Errors
    /// [`HyperError`], naming the value.
    pub fn check(&self) -> Result<(), HyperError> {
        let (Schedule::Step { every: epochs, factor } | Schedule::Plateau { patience: epochs, factor }) = *self else {
            return Ok(());
        };
        require("schedule's epochs", epochs, |&e| e >= 1, "at least 1")?;
        require("schedule's factor", factor, |&f| f > 0.0 && f <= 1.0, "above 0 and at most 1")
    }

    /// The learning rate of a step: `epoch` counts from 0, `progress` is the share of all steps that are done, in
    /// `[0, 1)`.
    pub fn rate(&self, base: f32, epoch: u32, progress: f64, state: &State) -> f32 {
        match *self {
            Schedule::Constant => base,
            Schedule::Cosine => (f64::from(base) * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))) as f32,
            Schedule::Step { every, factor } => (0..epoch / every.max(1)).fold(base, |rate, _| rate * factor),
            Schedule::Plateau { .. } => base * state.factor,
        }
    }

    /// Tells the schedule the training loss of the epoch that has ended.
    pub fn end_epoch(&self, loss: f64, state: &mut State) {
        let Schedule::Plateau { patience, factor } = *self else { return };
        if state.best.is_none_or(|best| loss < best) {
            (state.best, state.waited) = (Some(loss), 0);
            return;
        }
        state.waited += 1;
        if state.waited >= patience {
            (state.factor, state.waited) = (state.factor * factor, 0);
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Constant => f.write_str("constant"),
            Schedule::Cosine => f.write_str("cosine"),
            Schedule::Step { every, factor } => write!(f, "step:{every}:{factor}"),
            Schedule::Plateau { patience, factor } => write!(f, "plateau:{patience}:{factor}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = HyperError;
    fn from_str(text: &str) -> Result<Schedule, HyperError> {
        let parts: Vec<&str> = text.split(':').collect();
        let parsed = match parts[..] {
            ["constant"] => Some(Schedule::Constant),
            ["cosine"] => Some(Schedule::Cosine),
            [kind @ ("step" | "plateau"), epochs, factor] => match (epochs.parse(), factor.parse()) {
                (Ok(every), Ok(factor)) if kind == "step" => Some(Schedule::Step { every, factor }),
                (Ok(patience), Ok(factor)) => Some(Schedule::Plateau { patience, factor }),
                _ => None,
            },
            _ => None,
        };
        let must = "constant, cosine, step:EPOCHS:FACTOR or plateau:EPOCHS:FACTOR";
        let schedule = parsed.ok_or_else(|| HyperError { what: "schedule", value: text.into(), must })?;
        schedule.check().map(|()| schedule)
    }
}

impl TryFrom<String> for Schedule {
    type Error = HyperError;
    fn try_from(text: String) -> Result<Schedule, HyperError> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip_and_nonsense_is_refused() {
        for text in ["constant", "cosine", "step:3:0.5", "plateau:2:0.1"] {
            assert_eq!(text.parse::<Schedule>().map(|s| s.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "step", "step:0:0.5", "step:3:NaN", "plateau:2:-1", "plateau:2:inf", "step:3:0.5:1"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        let state = State::default();
        let step = Schedule::Step { every: 2, factor: 0.5 };
        let rates: Vec<f32> = (0..5).map(|e| step.rate(1.0, e, 0.0, &state)).collect();
        assert_eq!(rates, [1.0, 1.0, 0.5, 0.5, 0.25]);
        assert_eq!(Schedule::Cosine.rate(2.0, 0, 0.0, &state), 2.0);
        assert_eq!(Schedule::Cosine.rate(2.0, 0, 0.5, &state), 1.0);
        assert_eq!(Schedule::Constant.rate(2.0, 9, 0.5, &state), 2.0);
    }

    #[test]
    fn a_plateau_is_waited_out() {
        let (schedule, mut state) = (Schedule::Plateau { patience: 2, factor: 0.5 }, State::default());
        let mut after = |loss| {
            schedule.end_epoch(loss, &mut state);
            schedule.rate(1.0, 0, 0.0, &state)
        };
        let rates: Vec<f32> = [2.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.95, f64::NAN].into_iter().map(&mut after).collect();
        assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]);
    }
}
