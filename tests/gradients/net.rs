//! Whole nets: the trainer's gradients against the reference's bits, against `f64`, and against central differences of
//! the loss in `f64`.
//!
//! How far single precision may be off. A gradient is a last sum of terms, such as `Σ x·dy` over images and pixels. Its
//! own roundings are worth at most `γ` of their number times the sum of the terms' magnitudes; `x` and `dy` count with
//! the sums of their own terms' magnitudes, which may cancel. What comes from farther away would, taken at its worst,
//! multiply from layer to layer and bound nothing; roundings that are independent add like random steps (Higham and
//! Mary 2019, "A new approach to probabilistic rounding error analysis"), as the root of their number. Allowed is `γ`
//! of that number itself, hundreds to thousands: tens of times the root, and still less than a tenth of the gradients,
//! where a wrong one is off by its own size.

use super::walk::{Tape, Walk};
use super::{U64, gamma};
use num_traits::Float;
use rectify::rng::Rng;
use rectify::train::Stepper;
use rectify_kernels::Isa;
use rectify_kernels::reference::loss::softmax_cross_entropy;

const BATCH: usize = 9;
/// Unit roundoff of `f32`.
const U32: f64 = f32::EPSILON as f64 / 2.0;
/// Half of what a parameter is moved by.
const H: f64 = 1.0 / (1u64 << 20) as f64;
/// Steps before, so that biases are not zero and slopes differ.
const STEPS: usize = 2;
/// Elements of a tensor that are moved, at most.
const SAMPLE: usize = 12;

const DEEP: &str = r#"name = "deep"
input = [3, 9, 7]
[[layer]]
name = "padded"
type = "conv"
channels = 10
kernel = 3
padding = 1
activation = "prelu"
[[layer]]
name = "strided"
type = "conv"
channels = 18
kernel = 3
stride = 2
padding = 1
groups = 2
activation = "prelu-shared"
[[layer]]
name = "max"
type = "max-pool"
kernel = 2
stride = 1
[[layer]]
name = "dilated"
type = "conv"
channels = 17
kernel = 3
dilation = 2
padding = 2
activation = "leaky"
slope = 0.1
[[layer]]
name = "average"
type = "average-pool"
kernel = 3
stride = 2
padding = 1
[[layer]]
name = "drop"
type = "dropout"
rate = 0.25
[[layer]]
name = "fc1"
type = "linear"
outputs = 12
activation = "prelu"
[[layer]]
name = "fc2"
type = "linear"
outputs = 4
"#;

const FLAT: &str = r#"name = "flat"
input = [2, 6, 5]
[[layer]]
name = "conv"
type = "conv"
channels = 19
kernel = 2
activation = "relu"
[[layer]]
name = "depthwise"
type = "conv"
channels = 19
kernel = 3
padding = 1
groups = 19
activation = "prelu"
[[layer]]
name = "global"
type = "global-max-pool"
[[layer]]
name = "fc"
type = "linear"
outputs = 5
"#;

/// A net of Winograd convolutions, with more tiles than a chunk of their sums holds.
const TILED: &str = r#"name = "tiled"
input = [3, 18, 15]
[[layer]]
name = "first"
type = "conv"
channels = 16
kernel = 3
padding = 1
activation = "prelu"
[[layer]]
name = "three"
type = "conv"
channels = 48
kernel = 3
padding = 1
activation = "prelu"
[[layer]]
name = "max"
type = "max-pool"
kernel = 2
stride = 1
[[layer]]
name = "two"
type = "conv"
channels = 64
kernel = 2
activation = "prelu-shared"
[[layer]]
name = "small"
type = "conv"
channels = 20
kernel = 3
activation = "relu"
[[layer]]
name = "fc"
type = "linear"
outputs = 5
"#;

/// A net at a point where single and double precision take the same decisions.
struct Point {
    walk: Walk,
    parameters: Vec<Vec<f32>>,
    names: Vec<String>,
    pixels: Vec<f32>,
    labels: Vec<u32>,
    seed: u64,
}

/// A central difference of the loss by one element of one parameter.
struct Difference {
    tensor: usize,
    element: usize,
    value: f64,
    /// How far it may be off.
    off: f64,
    /// Whether every decision is the same on both sides.
    smooth: bool,
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

impl Point {
    fn new(text: &str, seed: u64) -> Point {
        let walk = Walk::new(text, BATCH, (seed, STEPS as u64));
        let mut rng = Rng::new(seed, 99);
        let pixels = (0..walk.dims[0].plain_len()).map(|_| rng.normal()).collect();
        let labels = (0..BATCH).map(|_| rng.below(walk.model.classes() as u32)).collect();
        let mut point = Point { walk, parameters: Vec::new(), names: Vec::new(), pixels, labels, seed };
        let stepper = point.stepper(Isa::best().unwrap());
        point.parameters = stepper.parameters().iter().map(|p| p.value.to_vec()).collect();
        point.names = stepper.parameters().iter().map(|p| format!("{} {}", point.walk.model.name, p.name)).collect();
        point
    }

    /// The first seed's point whose decisions do not hang on a rounding.
    fn find(text: &str) -> Point {
        let decided = |p: &Point| {
            let single = p.walk.forward(&p.parameters, &p.pixels);
            single.decisions() == p.walk.forward(&p.double(), &wide(&p.pixels)).decisions()
        };
        (1..20).map(|seed| Point::new(text, seed)).find(decided).expect("a point that is not on an edge")
    }

    fn double(&self) -> Vec<Vec<f64>> {
        self.parameters.iter().map(|p| wide(p)).collect()
    }

    /// The trainer after [`STEPS`] steps on an instruction set.
    fn stepper(&self, isa: Isa) -> Stepper {
        let mut stepper = Stepper::new(&self.walk.model, isa, BATCH, self.seed).unwrap();
        stepper.lr = 0.1;
        for _ in 0..STEPS {
            stepper.step(&self.pixels, &self.labels).unwrap();
        }
        stepper
    }

    /// The trainer's gradients.
    fn trained(&self, isa: Isa) -> Vec<Vec<f32>> {
        let mut stepper = self.stepper(isa);
        stepper.gradients(&self.pixels, &self.labels).unwrap();
        stepper.last_gradients().iter().map(|g| g.to_vec()).collect()
    }

    /// Mean loss.
    fn loss(&self, tape: &Tape<f64>) -> f64 {
        softmax_cross_entropy(self.walk.model.classes(), tape.scores(), &self.labels).unwrap().0.loss / BATCH as f64
    }

    /// The mean loss's gradients and their sizes, for each parameter.
    fn backward<T: Float>(&self, parameters: &[Vec<T>], tape: &Tape<T>) -> [Vec<Vec<T>>; 2] {
        let classes = self.walk.model.classes();
        let (_, gradient) = softmax_cross_entropy(classes, tape.scores(), &self.labels).unwrap();
        // A probability is off by half of what the scores are at most off by: `Σⱼ |∂pᵢ/∂zⱼ| = 2·pᵢ(1−pᵢ) ≤ ½`.
        let half = T::from(0.5 / BATCH as f64).unwrap();
        let of_sample = |size: &[T]| half * size.iter().copied().fold(T::zero(), T::max);
        let scores = tape.size.last().expect("scores").chunks(classes).map(of_sample);
        let size = gradient.chunks(classes).zip(scores).flat_map(|(g, s)| g.iter().map(move |g| g.abs() + s)).collect();
        self.walk.backward(parameters, tape, [gradient, size])
    }

    /// Central differences by a sample of each parameter's elements.
    fn differences(&self, tape: &Tape<f64>) -> Vec<Difference> {
        let (mut parameters, pixels) = (self.double(), wide(&self.pixels));
        let classes = self.walk.model.classes();
        // What the scores are off by counts twice in a loss (in the sum and in the label's); then its own roundings.
        let size = tape.size.last().into_iter().flatten().fold(0.0, |a: f64, &b| a.max(b));
        let rounding = 2.0 * gamma(self.walk.roundings().0 + classes + BATCH + 8, U64) * (size + 10.0);
        let mut rng = Rng::new(self.seed, 98);
        let mut all = Vec::new();
        for tensor in 0..parameters.len() {
            let mut order: Vec<usize> = (0..parameters[tensor].len()).collect();
            rng.shuffle(&mut order);
            for &element in order.iter().take(SAMPLE) {
                let at = parameters[tensor][element];
                let mut run = |by: f64| {
                    parameters[tensor][element] = at + by;
                    self.walk.forward(&parameters, &pixels)
                };
                let (up, down) = (run(H), run(-H));
                parameters[tensor][element] = at;
                let smooth = [&up, &down].iter().all(|t| t.decisions() == tape.decisions());
                let value = (self.loss(&up) - self.loss(&down)) / (2.0 * H);
                // The scores are linear between decisions, and the third derivative of `ln Σ exp z` along a line is the
                // third central moment of its slopes: below 0.1 of the cube of their range.
                let slopes: Vec<f64> =
                    up.scores().iter().zip(down.scores()).map(|(a, b)| (a - b) / (2.0 * H)).collect();
                let cube = |slopes: &[f64]| {
                    let (least, most) = slopes.iter().fold((f64::MAX, f64::MIN), |(a, b), &s| (a.min(s), b.max(s)));
                    (most - least).powi(3)
                };
                let third = slopes.chunks(classes).map(cube).sum::<f64>() / BATCH as f64 * 0.1;
                let off = H * H / 6.0 * third + rounding / H;
                all.push(Difference { tensor, element, value, off, smooth });
            }
        }
        all
    }
}

/// Nets of direct convolutions, whose errors the bounds below are for.
fn nets() -> [Point; 3] {
    let even = FLAT.replace("global-max", "global-average").replace("\"flat\"", "\"even\"");
    let points = [DEEP, FLAT, &even].map(Point::find);
    assert!(points.iter().all(|p| p.walk.winograd() == [0; 3]));
    points
}

#[test]
fn the_trainers_gradients_have_the_bits_of_the_reference() {
    let tiled = Point::new(TILED, 1);
    assert_eq!(tiled.walk.winograd(), [3, 3, 3]);
    for point in nets().into_iter().chain([tiled]) {
        let tape = point.walk.forward(&point.parameters, &point.pixels);
        let [want, _] = point.backward(&point.parameters, &tape);
        for isa in Isa::available() {
            let got = point.trained(isa);
            assert_eq!(got.len(), want.len());
            for ((name, got), want) in point.names.iter().zip(&got).zip(&want) {
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
                assert!(bits(got) == bits(want), "{name} on {isa}");
            }
        }
    }
}

#[test]
fn the_trainers_gradients_are_the_central_differences() {
    for point in nets() {
        let parameters = point.double();
        let tape = point.walk.forward(&parameters, &wide(&point.pixels));
        let [double, sizes] = point.backward(&parameters, &tape);
        let single = point.trained(Isa::best().unwrap());
        let (_, roundings) = point.walk.roundings();
        let bound = |i: usize, j: usize, u: f64| gamma(roundings, u) * sizes[i][j];
        for (i, name) in point.names.iter().enumerate() {
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
            let size = norm(&mut double[i].iter().copied());
            let allowed = norm(&mut (0..double[i].len()).map(|j| bound(i, j, U32)));
            let error = norm(&mut single[i].iter().zip(&double[i]).map(|(&a, b)| f64::from(a) - b));
            println!("{name}: norm {size:.1e}, off by {error:.1e}, {allowed:.1e} allowed");
            assert!(allowed < 0.1 * size, "{name}: a bound that allows anything proves nothing");
            for (j, (&got, &want)) in single[i].iter().zip(&double[i]).enumerate() {
                let (error, bound) = ((f64::from(got) - want).abs(), bound(i, j, U32));
                assert!(error <= bound, "{name}[{j}]: {got}, not {want}; {bound:e} allowed");
            }
        }
        let differences = point.differences(&tape);
        let skipped = differences.iter().filter(|d| !d.smooth).count();
        println!("{}: {skipped} of {} differences skipped", point.walk.model.name, differences.len());
        assert!(20 * skipped <= differences.len(), "{skipped} of {} differences skipped", differences.len());
        for Difference { tensor: i, element: j, value: want, off, .. } in differences.into_iter().filter(|d| d.smooth) {
            for (what, got, u) in [("single", f64::from(single[i][j]), U32), ("double", double[i][j], U64)] {
                let (error, bound) = ((got - want).abs(), bound(i, j, u) + off);
                assert!(error <= bound, "{}[{j}], {what}: {got}, not {want}; {bound:e} allowed", point.names[i]);
            }
        }
    }
}
