//! Initial weights: zero-mean Gaussians whose variance keeps the signal's scale through a deep net.

use crate::hyper::{HyperError, require};
use crate::rng::Rng;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Which variance the weights of a layer start with. Biases start at 0, slopes at what the model says.
///
/// `n = k²·c_in` and `n̂ = k²·c_out`, both of a group; `a` is the layer's initial slope. Written `he`, `he-backward`,
/// `he-slope`, `xavier` or `gaussian:STD`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Init {
    /// `½·n·Var[w] = 1` (He et al. 2015, Eq. 10, section 2.2): the forward signal keeps its scale.
    #[default]
    He,
    /// `½·n̂·Var[w] = 1` (He et al. 2015, Eq. 14, section 2.2): the gradient keeps its scale.
    HeBackward,
    /// `½·(1 + a²)·n·Var[w] = 1` (He et al. 2015, Eq. 15, section 2.2).
    HeSlope,
    /// `n·Var[w] = 1` (Glorot and Bengio 2010, as He et al. 2015, section 2.2 compare with it): takes no account of
    /// the rectifier.
    Xavier,
    /// The same standard deviation in every layer, such as the 0.01 that He et al. 2015, section 2.2 compare with.
    Gaussian(f32),
}

impl Init {
    /// Those that derive the deviation from the layer, by the names that models and the command line use.
    const NAMED: [(&'static str, Init); 4] =
        [("he", Init::He), ("he-backward", Init::HeBackward), ("he-slope", Init::HeSlope), ("xavier", Init::Xavier)];

    /// Standard deviation of the weights of a layer with `fan_in = n`, `fan_out = n̂` and initial slope `a`.
    ///
    /// ```
    /// use rectify::init::Init;
    /// assert_eq!(Init::He.std(50, 200, 0.25), 0.2);
    /// assert_eq!(Init::HeBackward.std(50, 200, 0.25), 0.1);
    /// assert_eq!(Init::Gaussian(0.01).std(50, 200, 0.25), 0.01);
    /// ```
    pub fn std(self, fan_in: usize, fan_out: usize, a: f32) -> f32 {
        let (n, n_hat, a) = (fan_in.max(1) as f64, fan_out.max(1) as f64, f64::from(a));
        let variance = match self {
            Init::He => 2.0 / n,
            Init::HeBackward => 2.0 / n_hat,
            Init::HeSlope => 2.0 / ((1.0 + a * a) * n),
            Init::Xavier => 1.0 / n,
            Init::Gaussian(std) => return std,
        };
        variance.sqrt() as f32
    }

    /// Refuses a deviation that is not finite and above 0.
    ///
    /// # Errors
    /// [`HyperError`], naming the value.
    pub fn check(self) -> Result<(), HyperError> {
        let Init::Gaussian(std) = self else { return Ok(()) };
        require("init's deviation", std, |&s| s > 0.0 && s.is_finite(), "finite and above 0")
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, Init::NAMED.iter().find(|(_, init)| init == self)) {
            (Init::Gaussian(std), _) => write!(f, "gaussian:{std}"),
            (_, Some((name, _))) => f.write_str(name),
            (_, None) => Ok(()),
        }
    }
}

impl FromStr for Init {
    type Err = HyperError;
    fn from_str(text: &str) -> Result<Init, HyperError> {
        let named = Init::NAMED.iter().find(|(name, _)| *name == text).map(|&(_, init)| init);
        let std = text.strip_prefix("gaussian:").and_then(|std| std.parse().ok()).map(Init::Gaussian);
        let must = "he, he-backward, he-slope, xavier or gaussian:STD";
        let init = named.or(std).ok_or_else(|| HyperError { what: "init", value: text.into(), must })?;
        init.check().map(|()| init)
    }
}

impl TryFrom<String> for Init {
    type Error = HyperError;
    fn try_from(text: String) -> Result<Init, HyperError> {
        text.parse()
    }
}

impl From<Init> for String {
    fn from(init: Init) -> String {
        init.to_string()
    }
}

/// Fills a slice with samples of `N(0, std²)`: one [`Rng::normal`] times `std`, in order.
pub fn fill(rng: &mut Rng, std: f32, weights: &mut [f32]) {
    weights.iter_mut().for_each(|w| *w = rng.normal() * std);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn variances() {
        let var = |init: Init, a| f64::from(init.std(9 * 64, 9 * 128, a)).powi(2);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6 * b;
        assert!(close(var(Init::He, 0.25) * 0.5 * 576.0, 1.0));
        assert!(close(var(Init::HeBackward, 0.25) * 0.5 * 1152.0, 1.0));
        assert!(close(var(Init::HeSlope, 0.5) * 0.5 * 1.25 * 576.0, 1.0));
        assert!(close(var(Init::HeSlope, 0.0), var(Init::He, 0.0)));
        assert!(close(var(Init::Xavier, 0.25) * 576.0, 1.0));
    }

    #[test]
    fn texts_round_trip_and_nonsense_is_refused() {
        for text in ["he", "he-backward", "he-slope", "xavier", "gaussian:0.01"] {
            assert_eq!(text.parse::<Init>().map(|i| i.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "He", "gaussian", "gaussian:", "gaussian:0", "gaussian:-1", "gaussian:inf", "gaussian:NaN"] {
            assert!(text.parse::<Init>().is_err(), "{text}");
        }
        assert_eq!(Init::Gaussian(f32::NAN).check().unwrap_err().what, "init's deviation");
    }

    #[test]
    fn samples_have_that_deviation() {
        let mut w = vec![0.0; 50_000];
        fill(&mut Rng::new(1, rng::INIT), 0.1, &mut w);
        let var = w.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / w.len() as f64;
        assert!((var.sqrt() - 0.1).abs() < 0.002, "{var}");
    }
}
