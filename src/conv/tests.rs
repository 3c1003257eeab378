use super::*;

fn dims() -> Dims {
    Dims { n: 2, c: 5, h: 6, w: 7 }
}

fn count(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 13) as f32 - 6.0).collect()
}

#[test]
fn one_line_equals_the_reference() {
    use crate::kernels::reference::conv as reference;
    let spec = Conv2dSpec::new(5, 3, 3).padding(1).strides(2, 1);
    let shape = spec.shape(dims()).unwrap();
    let (x, w) = (count(dims().plain_len()), count(spec.weight_len()));
    let y = forward_nchw(&spec, dims(), &x, &w, &[], &[]).unwrap();
    assert_eq!(y.data, reference::forward(&shape, &x, &w).unwrap());
    let relu = forward_nchw(&spec, dims(), &x, &w, &[], &[0.0]).unwrap();
    assert!(y.data.iter().zip(&relu.data).all(|(a, b)| a.max(0.0) == *b));
    let dy = count(y.data.len());
    let (dx, dw) = backward_nchw(&spec, dims(), &x, &w, &dy).unwrap();
    assert_eq!(dx.data, reference::backward_data(&shape, &dy, &w).unwrap());
    assert_eq!(dw, reference::backward_weights(&shape, &x, &dy).unwrap());
}

#[test]
fn mismatches_are_refused_by_name() {
    let options = PlanOptions::default();
    let spec = Conv2dSpec::new(5, 3, 3).padding(1);
    let plan = spec.plan(dims(), Activation::Bias, &options).unwrap();
    let data = spec.plan_backward_data(dims(), &options).unwrap();
    let w = count(spec.weight_len());
    let (x, mut y) = (Buffer::zeroed(dims().blocked_len()), Buffer::zeroed(plan.output().blocked_len()));
    let mut workspace = Buffer::zeroed(plan.workspace_len());
    let bias = Epilogue::Bias(&[0.0; 3]);
    let e = plan.run(&x, &data.pack(&w).unwrap(), bias, &mut y, &mut workspace).unwrap_err();
    assert!(e.to_string().contains("backward-data"), "{e}");
    let packed = plan.pack(&w).unwrap();
    let e = plan.run(&x, &packed, Epilogue::None, &mut y, &mut workspace).unwrap_err();
    assert_eq!(e, ConvError::Epilogue { planned: Activation::Bias, given: Activation::None });
    let e = plan.run(&x[1..], &packed, Epilogue::Bias(&[0.0; 3]), &mut y, &mut workspace).unwrap_err();
    assert_eq!(e, Error::Length { what: "x", got: x.len() - 1, want: x.len() }.into());
    let e = plan.run(&x, &packed, Epilogue::Bias(&[0.0; 3]), &mut y, &mut []).unwrap_err();
    assert!(e.to_string().contains("workspace has 0 elements"), "{e}");
    assert!(plan.pack(&w[1..]).is_err());
    let e = spec.plan(Dims { c: 4, ..dims() }, Activation::None, &options).unwrap_err();
    assert_eq!(e, ConvError::Channels { got: 4, want: 5 });
    let e = Conv2dSpec::new(5, 3, 9).plan(dims(), Activation::None, &options).unwrap_err();
    assert!(e.to_string().contains("kh = 9"), "{e}");
    let e = spec.stride(0).plan(dims(), Activation::None, &options).unwrap_err();
    assert!(e.to_string().contains("stride_h = 0"), "{e}");
}

#[test]
fn packed_weights_serve_other_images_and_batches() {
    let options = PlanOptions::default();
    let spec = Conv2dSpec::new(5, 3, 3);
    let plan = spec.plan(dims(), Activation::None, &options).unwrap();
    let packed = plan.pack(&count(spec.weight_len())).unwrap();
    let other = spec.plan(Dims { n: 1, h: 9, ..dims() }, Activation::None, &options).unwrap();
    let (x, mut y) = (Buffer::zeroed(other.input().blocked_len()), Buffer::zeroed(other.output().blocked_len()));
    let mut workspace = Buffer::zeroed(other.workspace_len());
    other.run(&x, &packed, Epilogue::None, &mut y, &mut workspace).unwrap();
    assert!(plan.describe().contains(plan.isa().name()), "{}", plan.describe());
}
