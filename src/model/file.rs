//! The TOML form of a model.

use super::{Activation, Conv, Layer, Model, ModelError, Op, Pool, Training};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use toml::Spanned;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    input: [usize; 3],
    training: Option<Spanned<Training>>,
    #[serde(default)]
    layer: Vec<Spanned<Entry>>,
}

/// All keys that some type of layer has; each type takes its own and refuses the rest.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    channels: Option<Spanned<usize>>,
    outputs: Option<Spanned<usize>>,
    kernel: Option<Spanned<usize>>,
    stride: Option<Spanned<usize>>,
    padding: Option<Spanned<usize>>,
    dilation: Option<Spanned<usize>>,
    groups: Option<Spanned<usize>>,
    activation: Option<Spanned<String>>,
    slope: Option<Spanned<f32>>,
    rate: Option<Spanned<f32>>,
    bins: Option<Spanned<Vec<usize>>>,
    bias: Option<Spanned<bool>>,
    from: Option<String>,
    add: Option<Spanned<String>>,
}

/// A message and the place it is about.
type Fault = (Range<usize>, String);

impl Model {
    /// Parses a description; the module's page shows one.
    ///
    /// # Errors
    /// [`ModelError::Line`], with the number of the line.
    pub fn parse(text: &str) -> Result<Model, ModelError> {
        let at = |(span, message): Fault| {
            let before = text.get(..span.start).unwrap_or(text);
            ModelError::Line { line: before.matches('\n').count() + 1, message }
        };
        let file: File = toml::from_str(text).map_err(|e: toml::de::Error| {
            at((e.span().unwrap_or(0..0), e.message().lines().next().unwrap_or_default().to_owned()))
        })?;
        if let Some(training) = &file.training {
            training.get_ref().check().map_err(|e| at((training.span(), format!("training: {e}"))))?;
        }
        let mut layers: Vec<Layer> = Vec::new();
        let spans: Vec<Range<usize>> = file.layer.iter().map(Spanned::span).collect();
        for entry in file.layer {
            let span = entry.span();
            let layer = entry.into_inner().layer(&span).map_err(at)?;
            if layers.iter().any(|l| l.name == layer.name) {
                return Err(at((span, format!("layer {:?} is there twice", layer.name))));
            }
            layers.push(layer);
        }
        let model = Model {
            name: file.name,
            input: file.input,
            layers,
            training: file.training.map(Spanned::into_inner).unwrap_or_default(),
        };
        match model.dims(1) {
            Ok(_) => Ok(model),
            Err(e) => match &e {
                ModelError::Layer { layer, .. } | ModelError::Reference { layer, .. } => {
                    let span = model.layers.iter().position(|l| l.name == *layer).map_or(0..0, |i| spans[i].clone());
                    Err(at((span, e.to_string())))
                }
                _ => Err(e),
            },
        }
    }

    /// The description in TOML; parsing it gives the same model again.
    ///
    /// # Errors
    /// [`ModelError::Net`] if a name cannot be written.
    pub fn to_toml(&self) -> Result<String, ModelError> {
        let file = File {
            name: self.name.clone(),
            input: self.input,
            training: spanned(self.training.clone()),
            layer: self.layers.iter().map(|l| Spanned::new(0..0, Entry::of(l))).collect(),
        };
        toml::to_string(&file).map_err(|e| ModelError::Net(e.to_string()))
    }
}

fn spanned<T>(value: T) -> Option<Spanned<T>> {
    Some(Spanned::new(0..0, value))
}

impl Entry {
    fn of(layer: &Layer) -> Entry {
        let mut entry = Entry { name: layer.name.clone(), kind: layer.op.kind().to_owned(), ..Entry::default() };
        (entry.from, entry.add) = (layer.from.clone(), layer.add.clone().and_then(spanned));
        match &layer.op {
            &Op::Conv(conv, activation) => {
                entry.channels = spanned(conv.channels);
                entry.kernel = spanned(conv.kernel);
                entry.stride = spanned(conv.stride);
                entry.padding = spanned(conv.padding);
                entry.dilation = spanned(conv.dilation);
                entry.groups = spanned(conv.groups);
                entry.bias = if conv.bias { None } else { spanned(false) };
                entry.set_activation(activation);
            }
            &Op::Linear { outputs, activation } => {
                entry.outputs = spanned(outputs);
                entry.set_activation(activation);
            }
            Op::MaxPool(pool) | Op::AveragePool(pool) => {
                entry.kernel = spanned(pool.kernel);
                entry.stride = spanned(pool.stride);
                entry.padding = spanned(pool.padding);
            }
            Op::GlobalMaxPool | Op::GlobalAveragePool => {}
            &Op::BatchNorm(activation) => entry.set_activation(activation),
            Op::Spp { bins } => entry.bins = spanned(bins.clone()),
            Op::Dropout { rate } => entry.rate = spanned(*rate),
        }
        entry
    }

    fn set_activation(&mut self, activation: Activation) {
        let (name, slope) = match activation {
            Activation::None => ("none", None),
            Activation::Relu => ("relu", None),
            Activation::Leaky(slope) => ("leaky", Some(slope)),
            Activation::Prelu { slope, shared: false } => ("prelu", Some(slope)),
            Activation::Prelu { slope, shared: true } => ("prelu-shared", Some(slope)),
        };
        (self.activation, self.slope) = (spanned(name.to_owned()), slope.and_then(spanned));
    }

    fn layer(mut self, span: &Range<usize>) -> Result<Layer, Fault> {
        let op = self.op(span)?;
        let add = match op {
            Op::Conv(..) | Op::BatchNorm(_) => self.add.take().map(Spanned::into_inner),
            _ => None,
        };
        for (key, left) in [
            ("channels", self.channels.map(|k| k.span())),
            ("outputs", self.outputs.map(|k| k.span())),
            ("kernel", self.kernel.map(|k| k.span())),
            ("stride", self.stride.map(|k| k.span())),
            ("padding", self.padding.map(|k| k.span())),
            ("dilation", self.dilation.map(|k| k.span())),
            ("groups", self.groups.map(|k| k.span())),
            ("activation", self.activation.map(|k| k.span())),
            ("slope", self.slope.map(|k| k.span())),
            ("rate", self.rate.map(|k| k.span())),
            ("bins", self.bins.map(|k| k.span())),
            ("bias", self.bias.map(|k| k.span())),
            ("add", self.add.map(|k| k.span())),
        ] {
            if let Some(span) = left {
                return Err((span, format!("layer {:?} of type {:?} has no key `{key}`", self.name, self.kind)));
            }
        }
        Ok(Layer { name: self.name, op, from: self.from, add })
    }

    /// Takes the keys that this type of layer has.
    fn op(&mut self, span: &Range<usize>) -> Result<Op, Fault> {
        let missing = |key: &str| (span.clone(), format!("missing field `{key}`"));
        let or = |key: &mut Option<Spanned<usize>>, default| key.take().map_or(default, Spanned::into_inner);
        match self.kind.as_str() {
            "conv" => {
                let conv = Conv {
                    channels: self.channels.take().ok_or_else(|| missing("channels"))?.into_inner(),
                    kernel: self.kernel.take().ok_or_else(|| missing("kernel"))?.into_inner(),
                    stride: or(&mut self.stride, 1),
                    padding: or(&mut self.padding, 0),
                    dilation: or(&mut self.dilation, 1),
                    groups: or(&mut self.groups, 1),
                    bias: self.bias.take().is_none_or(Spanned::into_inner),
                };
                Ok(Op::Conv(conv, self.take_activation()?))
            }
            "linear" => {
                let outputs = self.outputs.take().ok_or_else(|| missing("outputs"))?.into_inner();
                Ok(Op::Linear { outputs, activation: self.take_activation()? })
            }
            "max-pool" | "average-pool" => {
                let kernel = self.kernel.take().ok_or_else(|| missing("kernel"))?.into_inner();
                let pool = Pool { kernel, stride: or(&mut self.stride, kernel), padding: or(&mut self.padding, 0) };
                Ok(if self.kind == "max-pool" { Op::MaxPool(pool) } else { Op::AveragePool(pool) })
            }
            "global-max-pool" => Ok(Op::GlobalMaxPool),
            "global-average-pool" => Ok(Op::GlobalAveragePool),
            "spp" => Ok(Op::Spp { bins: self.bins.take().ok_or_else(|| missing("bins"))?.into_inner() }),
            "batch-norm" => Ok(Op::BatchNorm(self.take_activation()?)),
            "dropout" => {
                let rate = self.rate.take().ok_or_else(|| missing("rate"))?;
                if !(0.0..1.0).contains(rate.get_ref()) {
                    return Err((rate.span(), format!("rate = {}: it must be at least 0 and below 1", rate.get_ref())));
                }
                Ok(Op::Dropout { rate: rate.into_inner() })
            }
            kind => Err((
                span.clone(),
                format!(
                    "unknown type {kind:?}: expected conv, linear, max-pool, average-pool, global-max-pool, \
                     global-average-pool, spp, batch-norm or dropout"
                ),
            )),
        }
    }

    fn take_activation(&mut self) -> Result<Activation, Fault> {
        let Some(name) = self.activation.take() else { return Ok(Activation::None) };
        let mut slope = |default: f32| match self.slope.take() {
            Some(s) if !s.get_ref().is_finite() => {
                Err((s.span(), format!("slope = {}: it must be finite", s.get_ref())))
            }
            s => Ok(s.map_or(default, Spanned::into_inner)),
        };
        match name.get_ref().as_str() {
            "none" => Ok(Activation::None),
            "relu" => Ok(Activation::Relu),
            "leaky" => Ok(Activation::Leaky(slope(0.01)?)),
            "prelu" => Ok(Activation::Prelu { slope: slope(0.25)?, shared: false }),
            "prelu-shared" => Ok(Activation::Prelu { slope: slope(0.25)?, shared: true }),
            other => Err((
                name.span(),
                format!("unknown activation {other:?}: expected prelu, prelu-shared, relu, leaky or none"),
            )),
        }
    }
}

impl Op {
    /// The name of its type in a description.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Op::Conv(..) => "conv",
            Op::Linear { .. } => "linear",
            Op::MaxPool(_) => "max-pool",
            Op::AveragePool(_) => "average-pool",
            Op::GlobalMaxPool => "global-max-pool",
            Op::GlobalAveragePool => "global-average-pool",
            Op::Spp { .. } => "spp",
            Op::BatchNorm(_) => "batch-norm",
            Op::Dropout { .. } => "dropout",
        }
    }
}
