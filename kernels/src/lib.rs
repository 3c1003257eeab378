//! The compute kernels of `rectify`: slices in, slices out; they know no tensor and no layer.
