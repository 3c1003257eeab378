#!/bin/sh
# Gets what compiles for 64-bit ARM and runs it here, and writes how to use it to $1/env (default: target/aarch64).
#
# Debian 12 on amd64, as root. rustup can only serve its own archive's targets; Debian's security archive has a
# recent Rust ("rustc-web", there for browsers) with its standard library for arm64. The two do not install beside
# each other, so the packages are only unpacked. Usage afterwards:
#
#   . target/aarch64/env && cargo test --release --target aarch64-unknown-linux-gnu -p rectify-kernels
set -eu

say() { echo "aarch64: $*" >&2; }
fail() { say "$*"; exit 1; }

root=$(mkdir -p "${1:-target/aarch64}" && cd "${1:-target/aarch64}" && pwd)
oldest=$(sed -n 's/^rust-version = "\([0-9.]*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
triple=aarch64-unknown-linux-gnu
export DEBIAN_FRONTEND=noninteractive

[ "$(id -u)" = 0 ] || fail "needs root, to install packages"
[ "$(dpkg --print-architecture)" = amd64 ] || fail "written for amd64"

# The package lists of arm64 are needed for one package, which is only downloaded.
dpkg --print-foreign-architectures | grep -q '^arm64$' || dpkg --add-architecture arm64
apt-get update -q >/dev/null || say "apt-get update failed: going on with the lists that are there"

version=$(apt-cache madison rustc-web | cut -d'|' -f2 | tr -d ' ' | sort -V | tail -n 1)
[ -n "$version" ] || fail "no rustc-web in the package lists"
release=$(echo "$version" | cut -d. -f1,2)
[ "$(printf '%s\n%s\n' "$oldest" "$release" | sort -V | head -n 1)" = "$oldest" ] ||
    fail "rustc-web is $release, older than the $oldest that the project asks for"
runtime=libstd-rust-web-$release
llvm=$(apt-cache depends "$runtime=$version" | sed -n 's/.*Depends: \(libllvm[0-9]*\).*/\1/p' | head -n 1)
[ -n "$llvm" ] || fail "$runtime $version does not say which LLVM it needs"

apt-get install -q -y --no-install-recommends gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user "$llvm" >/dev/null

if [ "$(cat "$root/version" 2>/dev/null)" != "$version" ]; then
    rm -rf "$root/debs" "$root/tree"
    mkdir -p "$root/debs" "$root/tree"
    (
        cd "$root/debs"
        apt-get download -q -o APT::Sandbox::User=root "rustc-web=$version" "$runtime=$version" \
            "libstd-rust-web-dev=$version" "libstd-rust-web-dev:arm64=$version" >/dev/null
    )
    for deb in "$root"/debs/*.deb; do dpkg-deb --extract "$deb" "$root/tree"; done
    rm -rf "$root/debs"
    # The unpacked programs do not find their libraries by themselves.
    for program in rustc rustdoc; do
        printf '#!/bin/sh\nexport LD_LIBRARY_PATH="%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"\nexec "%s" "$@"\n' \
            "$root/tree/usr/lib/x86_64-linux-gnu" "$root/tree/usr/bin/$program" >"$root/$program"
        chmod +x "$root/$program"
    done
    cat >"$root/env" <<ENV
export RUSTC="$root/rustc" RUSTDOC="$root/rustdoc"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
ENV
    echo "$version" >"$root/version"
fi

# A program that adds two vectors must compile, link, run and be right.
cat >"$root/probe.rs" <<'RS'
use std::arch::aarch64::{vaddvq_f32, vdupq_n_f32, vfmaq_f32};
fn main() {
    let sum = unsafe { vaddvq_f32(vfmaq_f32(vdupq_n_f32(0.5), vdupq_n_f32(2.0), vdupq_n_f32(3.0))) };
    std::process::exit((sum != 26.0) as i32);
}
RS
"$root/rustc" --edition 2024 -O --target $triple -C linker=aarch64-linux-gnu-gcc -o "$root/probe" "$root/probe.rs"
qemu-aarch64 -L /usr/aarch64-linux-gnu "$root/probe" || fail "a compiled program does not run under qemu"
say "$("$root/rustc" -V) with $(qemu-aarch64 --version | head -n 1); use: . $root/env"
