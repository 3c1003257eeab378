//! What a pass computes, step by step, and which buffer holds each tensor.

use crate::model::{Activation, Model, ModelError, Op, Source};
use rectify_kernels::{Dims, conv::Layout};

/// A step: a layer with the batch norms that are folded into it. Tensors are numbered as in [`Source`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub layer: usize,
    /// The batch norm whose output the layer reads in the model, and the one that reads the layer's.
    pub before: Option<usize>,
    pub behind: Option<usize>,
    pub from: usize,
    pub add: Option<usize>,
    pub to: usize,
}

/// One step a layer: what training does.
pub(super) fn plain(model: &Model) -> Vec<Step> {
    let step = |layer| Step { layer, before: None, behind: None, from: layer, add: None, to: layer + 1 };
    (0..model.layers.len()).map(step).collect()
}

/// What becomes of a batch norm.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fold {
    /// It is a step of its own.
    Apart,
    /// It is folded into all layers that read it.
    Before,
    /// It is folded into the layer that it reads.
    Behind(usize),
}

/// Fewer steps that give the same scores: no dropout, batch norms folded wherever that is exact but for rounding.
pub(super) fn folded(model: &Model) -> Result<Vec<Step>, ModelError> {
    let mut sources = model.sources()?;
    // What dropout reads stands for what it gives.
    let mut stand_in: Vec<usize> = (0..=model.layers.len()).collect();
    for (i, layer) in model.layers.iter().enumerate() {
        let Source { from, add } = sources[i];
        sources[i] = Source { from: stand_in[from], add: add.map(|a| stand_in[a]) };
        if let Op::Dropout { .. } = layer.op {
            stand_in[i + 1] = sources[i].from;
        }
    }
    let last = stand_in[model.layers.len()];
    let is_affine = |i: usize| matches!(model.layers[i].op, Op::Conv(..) | Op::Linear { .. });
    let is_bare = |i: usize| model.layers[i].op.activation() == Activation::None && sources[i].add.is_none();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); model.layers.len() + 1];
    let mut is_shortcut = vec![false; model.layers.len() + 1];
    for (i, source) in sources.iter().enumerate() {
        if !matches!(model.layers[i].op, Op::Dropout { .. }) {
            readers[source.from].push(i);
        }
        if let Some(add) = source.add {
            is_shortcut[add] = true;
        }
    }
    let fold = |i: usize| {
        let from = sources[i].from;
        let alone = |tensor: usize| tensor != last && !is_shortcut[tensor];
        match from.checked_sub(1) {
            Some(j) if is_affine(j) && is_bare(j) && alone(from) && readers[from].len() == 1 => Fold::Behind(j),
            _ if is_bare(i) && alone(i + 1) && readers[i + 1].iter().all(|&r| is_affine(r)) => Fold::Before,
            _ => Fold::Apart,
        }
    };
    let folds: Vec<Option<Fold>> =
        (0..model.layers.len()).map(|i| matches!(model.layers[i].op, Op::BatchNorm(_)).then(|| fold(i))).collect();
    let mut steps = Vec::new();
    for i in 0..model.layers.len() {
        let behind_is = folds.iter().position(|f| *f == Some(Fold::Behind(i)));
        let layer = match folds[i] {
            // A layer runs where the batch norm behind it stands: only there is what that adds known.
            None if behind_is.is_some() || matches!(model.layers[i].op, Op::Dropout { .. }) => continue,
            Some(Fold::Before) => continue,
            Some(Fold::Behind(j)) => j,
            None | Some(Fold::Apart) => i,
        };
        let from = sources[layer].from;
        let before = from.checked_sub(1).filter(|&b| folds[b] == Some(Fold::Before));
        let from = before.map_or(from, |b| sources[b].from);
        let behind = (layer != i).then_some(i);
        steps.push(Step { layer, before, behind, from, add: sources[i].add, to: i + 1 });
    }
    Ok(steps)
}

/// How the net's input lies: NCHW if one convolution alone reads it and can do so.
pub(super) fn images(model: &Model, steps: &[Step], dims: Dims) -> Layout {
    let mut readers = steps.iter().filter(|s| s.from == 0 || s.add == Some(0));
    match (readers.next(), readers.next()) {
        (Some(Step { layer, add: None, .. }), None) => match &model.layers[*layer].op {
            Op::Conv(conv, _) if Op::conv_shape(conv, dims).has_few_channels() => Layout::Nchw,
            _ => Layout::Blocked,
        },
        _ => Layout::Blocked,
    }
}

/// Which buffer holds each tensor, and how long the buffers must be.
#[derive(Debug, PartialEq)]
pub(super) struct Buffers {
    /// The buffer of each tensor that a step reads or writes; 0 for the others.
    pub of: Vec<usize>,
    pub lens: Vec<usize>,
    /// The two buffers that gradients between the layers take turns in, and the one for inputs that the backward pass
    /// computes again. Training alone has them.
    pub gradients: [usize; 2],
    pub again: usize,
    /// Which tensors the backward pass computes again.
    pub recomputed: Vec<bool>,
}

/// What training takes. The backward pass reads the inputs of layers with weights. Those that are an activation's
/// output it computes again from what the activation was given, which is kept anyhow; the others have a buffer of their
/// own. All else, and then the gradients, take turns in a few buffers. Dropout works in place.
pub(super) fn training(model: &Model, steps: &[Step], len: &[usize]) -> Buffers {
    let op = |step: &Step| &model.layers[step.layer].op;
    let is_affine = |step: &Step| matches!(op(step), Op::Conv(..) | Op::Linear { .. });
    let is_dropout = |step: &Step| matches!(op(step), Op::Dropout { .. });
    let last = steps.last().map_or(0, |s| s.to);
    // The tensor that is overwritten in the end, step by step.
    let mut root: Vec<usize> = (0..len.len()).collect();
    steps.iter().filter(|s| is_dropout(s)).for_each(|s| root[s.to] = root[s.from]);
    let (mut kept, mut recomputed, mut last_read) =
        (vec![false; len.len()], vec![false; len.len()], vec![0; len.len()]);
    let mut activated = vec![false; len.len()];
    (kept[0], kept[root[last]]) = (true, true);
    for (at, step) in steps.iter().enumerate() {
        activated[step.to] = op(step).activation() != Activation::None;
        if is_affine(step) {
            recomputed[step.from] = activated[step.from];
            kept[root[step.from]] |= !activated[step.from];
        }
        last_read[root[step.from]] = at;
    }
    let mut buffers = Buffers { of: vec![0; len.len()], lens: vec![len[0]], gradients: [0; 2], again: 0, recomputed };
    let (mut free, mut turns): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for (at, step) in steps.iter().enumerate() {
        if is_dropout(step) {
            buffers.of[step.to] = buffers.of[step.from];
        } else if kept[step.to] {
            buffers.of[step.to] = buffers.lens.len();
            buffers.lens.push(len[step.to]);
        } else {
            buffers.of[step.to] = choose(&mut buffers.lens, &mut free, len[step.to]);
            turns.push(buffers.of[step.to]);
        }
        let read = root[step.from];
        if !kept[read] && last_read[read] == at {
            free.push(buffers.of[read]);
        }
    }
    // What gradients need, by whose turn it is, and then what inputs that are computed again do.
    let (mut need, mut turn) = ([len[last], 0, 0], 0);
    let first = steps.iter().position(is_affine).unwrap_or(0);
    for (at, step) in steps.iter().enumerate().skip(first).rev() {
        if !is_dropout(step) && at > first {
            turn = 1 - turn;
            need[turn] = need[turn].max(len[step.from]);
        }
        if is_affine(step) && buffers.recomputed[step.from] {
            need[2] = need[2].max(len[step.from]);
        }
    }
    // By then the buffers of the forward pass are free: the largest to who needs most.
    turns.sort_unstable();
    turns.dedup();
    turns.sort_by_key(|&b| std::cmp::Reverse(buffers.lens[b]));
    let mut roles = [0, 1, 2];
    roles.sort_by_key(|&role| std::cmp::Reverse(need[role]));
    for (place, role) in roles.into_iter().enumerate() {
        let buffer = turns.get(place).copied().unwrap_or_else(|| {
            buffers.lens.push(0);
            buffers.lens.len() - 1
        });
        buffers.lens[buffer] = buffers.lens[buffer].max(need[role]);
        *buffers.gradients.get_mut(role).unwrap_or(&mut buffers.again) = buffer;
    }
    buffers
}

/// Takes the smallest free buffer that is long enough, or else the longest, which grows, or else a new one.
fn choose(lens: &mut Vec<usize>, free: &mut Vec<usize>, need: usize) -> usize {
    let fits = free.iter().copied().filter(|&b| lens[b] >= need).min_by_key(|&b| (lens[b], b));
    let chosen = fits.or_else(|| free.iter().copied().max_by_key(|&b| (lens[b], b)));
    let chosen = chosen.unwrap_or_else(|| {
        lens.push(0);
        lens.len() - 1
    });
    free.retain(|&b| b != chosen);
    lens[chosen] = lens[chosen].max(need);
    chosen
}

/// As few buffers as the steps allow: a tensor's is free again when the last step that reads it is done. What a step of
/// the rounds gives for the whole batch, `collects` a step's place, must outlast the rounds and is a buffer of its own.
pub(super) fn reused(steps: &[Step], len: &[usize], collects: impl Fn(usize) -> bool) -> Buffers {
    let last_read = |tensor: usize| steps.iter().rposition(|s| s.from == tensor || s.add == Some(tensor));
    let mut buffers =
        Buffers { of: vec![0; len.len()], lens: vec![len[0]], gradients: [0; 2], again: 0, recomputed: Vec::new() };
    let mut free: Vec<usize> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let free_here = if collects(at) { &mut Vec::new() } else { &mut free };
        buffers.of[step.to] = choose(&mut buffers.lens, free_here, len[step.to]);
        let mut done: Vec<usize> = [Some(step.from), step.add].into_iter().flatten().collect();
        done.dedup();
        free.extend(done.into_iter().filter(|&t| last_read(t) == Some(at)).map(|t| buffers.of[t]));
    }
    buffers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(layers: &str) -> (Model, Vec<Step>) {
        let text = format!("name = \"x\"\ninput = [3, 8, 8]\nlayer = [{layers}]");
        let model = Model::parse(&text).unwrap();
        let steps = folded(&model).unwrap();
        (model, steps)
    }

    const END: &str = r#"{ name = "pool", type = "global-max-pool" }, { name = "fc", type = "linear", outputs = 2 }"#;

    #[test]
    fn norms_are_folded_into_the_convolutions_beside_them() {
        let (_, s) = steps(&format!(
            r#"{{ name = "bn1", type = "batch-norm" }},
            {{ name = "conv", type = "conv", channels = 4, kernel = 3, padding = 1 }},
            {{ name = "bn2", type = "batch-norm", activation = "prelu" }},
            {{ name = "drop", type = "dropout", rate = 0.5 }},
            {{ name = "bn3", type = "batch-norm" }}, {END}"#
        ));
        let step = |layer, from, to| Step { layer, before: None, behind: None, from, add: None, to };
        // bn3 reads what bn2 gives; it stands before a pooling layer.
        let conv = Step { before: Some(0), behind: Some(2), ..step(1, 0, 3) };
        assert_eq!(s, [conv, step(4, 3, 5), step(5, 5, 6), step(6, 6, 7)]);
    }

    #[test]
    fn what_something_else_reads_is_not_folded() {
        // The activation, the sum and the other reader stand between.
        for (conv, bn, other) in [
            (r#", activation = "relu""#, "", ""),
            (r#", add = "first""#, "", ""),
            ("", "", r#"{ name = "late", type = "conv", channels = 3, kernel = 1, from = "conv", add = "bn" },"#),
        ] {
            let (_, s) = steps(&format!(
                r#"{{ name = "first", type = "conv", channels = 3, kernel = 1 }},
                {{ name = "conv", type = "conv", channels = 3, kernel = 1{conv} }},
                {{ name = "bn", type = "batch-norm"{bn} }}, {other} {END}"#
            ));
            assert!(s.iter().any(|s| s.layer == 2) && s.iter().all(|s| s.behind.is_none()), "{s:?}");
        }
    }

    #[test]
    fn a_chain_takes_two_buffers_and_a_shortcut_a_third() {
        let convs = |n: usize| -> String {
            (0..n).map(|i| format!(r#"{{ name = "{i}", type = "conv", channels = 3, kernel = 1 }},"#)).collect()
        };
        let (model, s) = steps(&format!("{}{END}", convs(5)));
        let len: Vec<usize> = model.dims(1).unwrap().iter().map(|d| d.blocked_len()).collect();
        let buffers = reused(&s, &len, |_| false);
        assert_eq!((buffers.of, buffers.lens), (vec![0, 1, 0, 1, 0, 1, 0, 1], vec![1024; 2]));
        let add = r#"{ name = "sum", type = "conv", channels = 3, kernel = 1, add = "0" },"#;
        let (_, s) = steps(&format!("{}{add}{END}", convs(4)));
        let buffers = reused(&s, &len, |_| false);
        assert_eq!((buffers.of, buffers.lens), (vec![0, 1, 0, 2, 0, 2, 0, 1], vec![1024; 3]));
    }

    #[test]
    fn training_keeps_what_the_backward_pass_reads_and_cannot_compute_again() {
        let conv = |name: &str, more: &str| {
            format!(r#"{{ name = "{name}", type = "conv", channels = 3, kernel = 1{more} }},"#)
        };
        let prelu = r#", activation = "prelu""#;
        let (a, b, c) = (conv("a", prelu), conv("b", prelu), conv("c", ""));
        let pool = r#"{ name = "p", type = "max-pool", kernel = 2 },"#;
        let drop = r#"{ name = "d", type = "dropout", rate = 0.5 },"#;
        let (model, _) = steps(&format!("{a}{b}{pool}{c}{drop}{END}"));
        let len: Vec<usize> = model.dims(1).unwrap().iter().map(|d| d.blocked_len()).collect();
        assert_eq!(len, [1024, 1024, 1024, 256, 256, 256, 16, 16]);
        let found = training(&model, &plain(&model), &len);
        // b reads what a's activation gave; c reads what the first pool gave, fc what the second did.
        assert_eq!(found.recomputed, [false, true, false, false, false, false, false, false]);
        // Kept: images, both pools' outputs, scores. a and b take turns; what c gives, dropout overwrites.
        assert_eq!(found.of, [0, 1, 2, 3, 1, 1, 4, 5]);
        // The gradients of what a and b give are long, and so is what a gave, which needs a buffer more.
        assert_eq!((found.gradients, found.again), ([1, 2], 6));
        assert_eq!(found.lens, [1024, 1024, 1024, 256, 16, 16, 1024]);
    }
}
