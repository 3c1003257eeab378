//! One picture: ground, marks, shape, noise.

use super::SIZE;
use super::outline::{Outline, Point, length, segment};
use crate::rng::Rng;

/// Red, green and blue, each from 0 to 1.
type Colour = [f32; 3];

/// Knots on a side of the lattice that the texture is interpolated from.
const KNOTS: usize = 6;

/// Draws a shape into `pixels` (CHW, 3 × [`SIZE`] × [`SIZE`]).
pub(super) fn draw(outline: Outline, rng: &mut Rng, pixels: &mut [u8]) {
    let ground = Paint::draw(colour(rng), 0.3, rng);
    let shape = Paint::draw(contrasting(ground.colour, rng), 0.2, rng);
    let texture = Texture::draw(rng);
    let place = Place::draw(rng);
    let marks: Vec<Mark> = (0..rng.below(4)).map(|_| Mark::draw(rng)).collect();
    let over = Mark { thickness: rng.between(0.5, 0.9), ..Mark::draw(rng) };
    let noise = rng.between(0.02, 0.1);
    for at in 0..SIZE * SIZE {
        let p = [(at % SIZE) as f32 + 0.5, (at / SIZE) as f32 + 0.5];
        let mut light = ground.at(p);
        let grain = texture.at(p);
        light = light.map(|v| v + grain);
        for mark in &marks {
            light = mix(light, mark.colour, mark.cover(p));
        }
        light = mix(light, shape.at(p), place.cover(outline, p));
        light = mix(light, over.colour, over.cover(p));
        for (channel, v) in light.into_iter().enumerate() {
            let v = v + noise * bell(rng);
            pixels[channel * SIZE * SIZE + at] = (v * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}

/// How much of a pixel a shape covers, from the distance of its centre to the outline in pixels.
fn cover(distance: f32) -> f32 {
    (0.5 - distance).clamp(0.0, 1.0)
}

/// `a` where `share` is 0, `b` where it is 1.
fn mix(a: Colour, b: Colour, share: f32) -> Colour {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * share)
}

/// Any colour.
fn colour(rng: &mut Rng) -> Colour {
    [(); 3].map(|()| rng.uniform())
}

/// A colour that stands out against another.
fn contrasting(other: Colour, rng: &mut Rng) -> Colour {
    for _ in 0..16 {
        let drawn = colour(rng);
        if (0..3).map(|i| (drawn[i] - other[i]).abs()).sum::<f32>() > 0.8 {
            return drawn;
        }
    }
    other.map(|v| if v < 0.5 { v + 0.5 } else { v - 0.5 })
}

/// Roughly normal, of standard deviation 1 and at most 3.5: the sum of the four bytes of one draw, shifted and scaled.
fn bell(rng: &mut Rng) -> f32 {
    let sum: u32 = rng.next_u32().to_le_bytes().into_iter().map(u32::from).sum();
    (sum as f32 - 510.0) / 147.8
}

/// A unit vector in a random direction.
fn direction(rng: &mut Rng) -> Point {
    let (sine, cosine) = libm::sincosf(rng.uniform() * core::f32::consts::TAU);
    [cosine, sine]
}

/// A point of the picture.
fn point(rng: &mut Rng) -> Point {
    [rng.uniform() * SIZE as f32, rng.uniform() * SIZE as f32]
}

/// A colour that becomes another across the picture.
struct Paint {
    colour: Colour,
    change: Colour,
    direction: Point,
}

impl Paint {
    fn draw(colour: Colour, most: f32, rng: &mut Rng) -> Paint {
        Paint { colour, change: [(); 3].map(|()| rng.between(-most, most)), direction: direction(rng) }
    }

    fn at(&self, [x, y]: Point) -> Colour {
        let half = SIZE as f32 / 2.0;
        let along = ((x - half) * self.direction[0] + (y - half) * self.direction[1]) / half;
        [0, 1, 2].map(|i| self.colour[i] + self.change[i] * along)
    }
}

/// Smooth blotches: values on a lattice, interpolated linearly.
struct Texture {
    knots: [[f32; KNOTS]; KNOTS],
}

impl Texture {
    fn draw(rng: &mut Rng) -> Texture {
        let strength = rng.between(0.0, 0.15);
        Texture { knots: [[(); KNOTS]; KNOTS].map(|row| row.map(|()| rng.between(-strength, strength))) }
    }

    fn at(&self, p: Point) -> f32 {
        let [x, y] = p.map(|v| v / SIZE as f32 * (KNOTS - 1) as f32);
        let (column, row) = ((x as usize).min(KNOTS - 2), (y as usize).min(KNOTS - 2));
        let (dx, dy) = (x - column as f32, y - row as f32);
        let level = |row: &[f32; KNOTS]| row[column] + (row[column + 1] - row[column]) * dx;
        let (upper, lower) = (level(&self.knots[row]), level(&self.knots[row + 1]));
        upper + (lower - upper) * dy
    }
}

/// Where the shape lies.
struct Place {
    centre: Point,
    /// Half its width and height in pixels, before the turn.
    radii: Point,
    turn: Point,
}

impl Place {
    fn draw(rng: &mut Rng) -> Place {
        let radius = rng.between(7.0, 13.0);
        let stretch = rng.between(0.85, 1.15);
        let centre = [(); 2].map(|()| rng.between(radius * 0.9, SIZE as f32 - radius * 0.9));
        Place { centre, radii: [radius * stretch, radius / stretch], turn: direction(rng) }
    }

    fn cover(&self, outline: Outline, p: Point) -> f32 {
        let [x, y] = [p[0] - self.centre[0], p[1] - self.centre[1]];
        let larger = self.radii[0].max(self.radii[1]);
        if length([x, y]) > larger * 1.1 + 1.0 {
            return 0.0;
        }
        let [cosine, sine] = self.turn;
        let local = [(x * cosine + y * sine) / self.radii[0], (y * cosine - x * sine) / self.radii[1]];
        cover(outline.distance(local) * self.radii[0].min(self.radii[1]))
    }
}

/// A short stroke or a dot that belongs to no shape.
struct Mark {
    colour: Colour,
    ends: [Point; 2],
    thickness: f32,
}

impl Mark {
    fn draw(rng: &mut Rng) -> Mark {
        let (start, direction, length) = (point(rng), direction(rng), rng.between(0.5, 9.0));
        let end = [start[0] + direction[0] * length, start[1] + direction[1] * length];
        Mark { colour: colour(rng), ends: [start, end], thickness: rng.between(0.6, 1.6) }
    }

    fn cover(&self, p: Point) -> f32 {
        cover(segment(self.ends[0], self.ends[1], p) - self.thickness)
    }
}
