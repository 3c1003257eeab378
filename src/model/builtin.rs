//! The nets that are built in.

/// Name and description of each.
pub const BUILT_IN: [(&str, &str); 14] = [
    ("shapes-small", include_str!("builtin/shapes-small.toml")),
    ("cifar-small", include_str!("builtin/cifar-small.toml")),
    ("cifar13", include_str!("builtin/cifar13.toml")),
    ("e14", include_str!("builtin/e14.toml")),
    ("e14-relu", include_str!("builtin/e14-relu.toml")),
    ("e14-shared", include_str!("builtin/e14-shared.toml")),
    ("e14-32", include_str!("builtin/e14-32.toml")),
    ("e30", include_str!("builtin/e30.toml")),
    ("e30-32", include_str!("builtin/e30-32.toml")),
    ("a19", include_str!("builtin/a19.toml")),
    ("b22", include_str!("builtin/b22.toml")),
    ("c22", include_str!("builtin/c22.toml")),
    ("vgg19", include_str!("builtin/vgg19.toml")),
    ("iresnet18", include_str!("builtin/iresnet18.toml")),
];

/// Their names, for people.
pub(super) fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}
