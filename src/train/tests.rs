use super::*;
use crate::rng::Rng;

const MODEL: &str = r#"name = "tiny"
input = [3, 6, 6]
[training]
epochs = 2
batch = 4
schedule = "plateau:1:0.5"
flip = true
crop = 1
[[layer]]
name = "conv"
type = "conv"
channels = 5
kernel = 3
activation = "prelu"
[[layer]]
name = "drop"
type = "dropout"
rate = 0.25
[[layer]]
name = "pool"
type = "global-average-pool"
[[layer]]
name = "fc"
type = "linear"
outputs = 3
"#;

fn images(count: usize, seed: u64) -> Images {
    let mut rng = Rng::new(seed, 99);
    let pixels = (0..count * 3 * 36).map(|_| rng.below(256) as u8).collect();
    Images { c: 3, h: 6, w: 6, pixels, labels: (0..count as u32).map(|i| i % 3).collect(), disk: None }
}

fn dataset() -> Dataset {
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    Dataset { name: "noise".into(), classes, train: images(18, 1), test: images(7, 2) }
}

fn quiet(_: &Trainer<'_>, _: Event<'_>) -> Result<(), TrainError> {
    Ok(())
}

#[test]
fn going_on_gives_the_same_bytes_as_not_stopping() {
    let (data, isa) = (dataset(), Isa::best().unwrap());
    let stop = AtomicBool::new(false);
    let mut whole = Trainer::new(Model::parse(MODEL).unwrap(), &data, 7, isa).unwrap();
    whole.run(None, &stop, &mut quiet).unwrap();
    let want = whole.checkpoint().to_bytes().unwrap();
    assert_eq!((whole.progress().epoch, whole.progress().steps), (2, 8));
    for at in 0..=8 {
        let mut part = Trainer::new(Model::parse(MODEL).unwrap(), &data, 7, isa).unwrap();
        part.run(Some(at), &stop, &mut quiet).unwrap();
        let saved = part.checkpoint().to_bytes().unwrap();
        assert_eq!(saved == want, at == 8);
        let mut rest = Trainer::resume(Checkpoint::from_bytes(&saved).unwrap(), &data, isa).unwrap();
        rest.run(None, &stop, &mut quiet).unwrap();
        assert!(rest.checkpoint().to_bytes().unwrap() == want, "stopped after {at} steps");
    }
}

#[test]
fn a_stop_ends_after_the_step() {
    let data = dataset();
    let mut trainer = Trainer::new(Model::parse(MODEL).unwrap(), &data, 7, Isa::Portable).unwrap();
    let stop = AtomicBool::new(false);
    let mut after_three = |t: &Trainer<'_>, _: Event<'_>| {
        stop.store(t.progress().steps == 3, Ordering::Relaxed);
        Ok(())
    };
    trainer.run(None, &stop, &mut after_three).unwrap();
    assert_eq!((trainer.progress().steps, trainer.progress().step), (3, 3));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (data, model) = (dataset(), Model::parse(MODEL).unwrap());
    let refused = |model: Model, data: &Dataset| match Trainer::new(model, data, 1, Isa::Portable) {
        Ok(_) => String::new(),
        Err(e) => e.to_string(),
    };
    let mut wrong = model.clone();
    wrong.training.lr = f32::NAN;
    assert_eq!(refused(wrong, &data), "lr = NaN: it must be finite and above 0");
    let mut wrong = model.clone();
    wrong.training.batch = 19;
    assert_eq!(refused(wrong, &data), "batch = 19, but there are 18 training images");
    assert!(refused(model.fit([3, 8, 8], 3).unwrap(), &data).contains("3×6×6"));
    assert!(refused(model.fit([3, 6, 6], 4).unwrap(), &data).contains("3 classes"));
    let mut checkpoint = Trainer::new(model, &data, 1, Isa::Portable).unwrap().checkpoint();
    checkpoint.classes[0] = "z".into();
    assert!(Trainer::resume(checkpoint, &data, Isa::Portable).is_err());
}

#[test]
fn a_run_that_diverges_ends_before_it_is_saved() {
    let (data, model) = (dataset(), Model::parse(MODEL).unwrap());
    let mut hot = model.clone();
    hot.training.lr = 1e30;
    let mut trainer = Trainer::new(hot, &data, 1, Isa::Portable).unwrap();
    let end = trainer.run(None, &AtomicBool::new(false), &mut quiet);
    assert!(matches!(end, Err(TrainError::Diverged { .. })), "{end:?}");
    // The last step of an epoch is seen by the test images alone.
    let mut once = model.clone();
    (once.training.lr, once.training.batch) = (f32::MAX, 18);
    let mut trainer = Trainer::new(once, &data, 1, Isa::Portable).unwrap();
    let mut epochs = 0;
    let mut count = |_: &Trainer<'_>, event: Event<'_>| {
        epochs += i32::from(matches!(event, Event::Epoch(_)));
        Ok(())
    };
    let end = trainer.run(None, &AtomicBool::new(false), &mut count);
    assert!(matches!(end, Err(TrainError::Diverged { what: "the test loss", step: 1, .. })), "{end:?}");
    assert_eq!(epochs, 0, "nobody hears of such an epoch");
    // A parameter that is no number is not to be saved, wherever the run stops.
    let mut ruined = Trainer::new(model, &data, 1, Isa::Portable).unwrap().checkpoint();
    ruined.parameters[2].value[0] = f32::NAN;
    let end = Trainer::resume(ruined, &data, Isa::Portable).unwrap().run(Some(0), &AtomicBool::new(false), &mut quiet);
    assert!(matches!(end, Err(TrainError::Diverged { what: "a parameter", step: 0, .. })), "{end:?}");
}

#[test]
fn progress_that_no_run_can_have_made_is_refused() {
    let data = dataset();
    let mut trainer = Trainer::new(Model::parse(MODEL).unwrap(), &data, 7, Isa::Portable).unwrap();
    trainer.run(Some(6), &AtomicBool::new(false), &mut quiet).unwrap();
    let good = trainer.checkpoint();
    assert_eq!((good.progress.epoch, good.progress.step), (1, 2));
    let resumes = |change: &dyn Fn(&mut Progress)| {
        let mut checkpoint = good.clone();
        change(&mut checkpoint.progress);
        Trainer::resume(checkpoint, &data, Isa::Portable).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(resumes(&|_| ()), Ok(()));
    for (i, change) in [
        (|p| p.steps = u64::MAX) as fn(&mut Progress),
        |p| p.step = 5,
        |p| p.epoch = u32::MAX,
        |p| p.correct = 9,
        |p| p.loss = f64::INFINITY,
        |p| p.schedule.factor = f32::NAN,
        |p| p.schedule.waited = 2,
    ]
    .iter()
    .enumerate()
    {
        assert!(resumes(change).is_err_and(|e| e.starts_with("no ")), "change {i}");
    }
}

#[test]
fn the_folder_keeps_its_records_and_its_pictures() {
    let data = dataset();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep/run");
    let mut folder = RunFolder::create(&path).unwrap();
    let mut trainer = Trainer::new(Model::parse(MODEL).unwrap(), &data, 7, Isa::Portable).unwrap();
    let mut save = |t: &Trainer<'_>, event: Event<'_>| match event {
        Event::Epoch(record) => folder.record(record, &t.checkpoint()),
        Event::Step { .. } => Ok(()),
    };
    trainer.run(None, &AtomicBool::new(false), &mut save).unwrap();
    assert!(RunFolder::create(&path).unwrap_err().to_string().contains("metrics.jsonl"));
    let again = RunFolder::resume(&path, 1).unwrap();
    assert_eq!(again.records(), &folder.records()[..1]);
    assert_eq!(folder.records()[1].slopes[0].layer, "conv");
    let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["checkpoint.safetensors", "curves.svg", "metrics.jsonl", "slopes.svg"]);
    assert!(
        Checkpoint::load(&again.checkpoint()).unwrap().to_bytes().unwrap() == trainer.checkpoint().to_bytes().unwrap()
    );
    // What cannot be replaced is known before any step.
    for name in ["checkpoint.safetensors", "curves.svg", "metrics.jsonl", "slopes.svg"] {
        let (file, aside) = (path.join(name), path.join("aside"));
        std::fs::rename(&file, &aside).unwrap();
        std::fs::create_dir(&file).unwrap();
        for refused in [RunFolder::resume(&path, 1), RunFolder::create(&path)] {
            assert!(matches!(refused, Err(TrainError::File(_) | TrainError::Folder { .. })), "{name}: {refused:?}");
        }
        let text = RunFolder::resume(&path, 1).unwrap_err().to_string();
        assert_eq!(text, format!("{}: exists and is not a regular file", file.display()));
        std::fs::remove_dir(&file).unwrap();
        std::fs::rename(&aside, &file).unwrap();
    }
    std::fs::write(path.join("metrics.jsonl"), "{}\n").unwrap();
    assert!(RunFolder::resume(&path, 1).unwrap_err().to_string().contains("line 1"));
}

#[test]
fn a_step_is_the_gradients_and_then_the_update() {
    // A fully connected layer over pixels, too, whose update is fused.
    let over_pixels = MODEL.replace("[[layer]]\nname = \"pool\"\ntype = \"global-average-pool\"\n", "");
    assert_ne!(over_pixels, MODEL);
    for text in [MODEL, &over_pixels] {
        let model = Model::parse(text).unwrap();
        for batch in [4, 9, 40] {
            let mut rng = Rng::new(1, 99);
            let pixels: Vec<f32> = (0..batch * 3 * 36).map(|_| rng.normal()).collect();
            let labels: Vec<u32> = (0..batch as u32).map(|i| i % 3).collect();
            let isa = Isa::best().unwrap();
            let mut stepper = Stepper::new(&model, isa, batch, 1).unwrap();
            let mut parameters = stepper.parameters().clone();
            let mut sgd = Sgd::new(&model.training, &parameters);
            for _ in 0..3 {
                let kept = stepper.gradients(&pixels, &labels).unwrap();
                let gradients = stepper.last_gradients().to_vec();
                let mut descent = sgd.descent(&mut parameters, stepper.lr);
                for (place, gradient) in gradients.iter().enumerate() {
                    assert!(gradient.iter().any(|&g| g != 0.0));
                    descent.apply(isa, place, gradient).unwrap();
                }
                assert_eq!(stepper.step(&pixels, &labels).unwrap(), kept);
                for (p, want) in stepper.parameters().iter().zip(parameters.iter()) {
                    assert!(
                        p.value.iter().map(|v| v.to_bits()).eq(want.value.iter().map(|v| v.to_bits())),
                        "{}",
                        p.name
                    );
                }
            }
        }
    }
}

/// Photos of 10×12 noise pixels, cut to the model's 6×6.
fn photos(home: &std::path::Path) -> Dataset {
    use crate::data::photos::{Broken, Photos};
    use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
    let mut rng = Rng::new(1, 99);
    for (class, half) in ["a", "b", "c"].into_iter().flat_map(|class| [(class, "train"), (class, "val")]) {
        let folder = home.join(half).join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..2 {
            let pixels: Vec<u8> = (0..3 * 10 * 12).map(|_| rng.below(256) as u8).collect();
            let file = std::fs::File::create(folder.join(format!("{i}.png"))).unwrap();
            PngEncoder::new(file).write_image(&pixels, 12, 10, ExtendedColorType::Rgb8).unwrap();
        }
    }
    Photos::open(home, Broken::Fatal).unwrap().dataset((6, 6), 8).unwrap()
}

#[test]
fn images_are_varied_in_every_way_that_the_model_says() {
    use crate::data::{Augment, Epoch, batch};
    let home = tempfile::tempdir().unwrap();
    let (isa, memory, photos) = (Isa::best().unwrap(), dataset(), photos(home.path()));
    let plain = Augment::default();
    for (data, augment) in [
        (&memory, plain),
        (&memory, Augment { flip: true, ..plain }),
        (&memory, Augment { pad_crop: 2, ..plain }),
        (&photos, plain),
        (&photos, Augment { scale: Some([8, 20]), ..plain }),
        (&photos, Augment { scale: Some([8, 20]), colour: 0.5, ..plain }),
        (&photos, Augment { scale: Some([8, 20]), flip: true, colour: 0.5, ..plain }),
    ] {
        let mut model = Model::parse(MODEL).unwrap();
        let training = &mut model.training;
        (training.flip, training.crop) = (augment.flip, augment.pad_crop);
        (training.scale, training.colour) = (augment.scale, augment.colour);
        let mut stepper = Stepper::new(&model, isa, 4, 7).unwrap();
        let (epoch, normalise) = (Epoch { seed: 7, number: 0 }, Normalise::of(&data.train).unwrap());
        let order = epoch.order(data.train.len() as u32);
        let (mut pixels, mut labels) = (vec![0.0; 4 * 3 * 36], [0; 4]);
        let varied = (augment != plain).then_some((augment, epoch));
        batch(&data.train, &order[..4], &normalise, varied, &mut pixels, &mut labels).unwrap();
        let want = stepper.step(&pixels, &labels).unwrap().loss / 4.0;
        let mut losses = Vec::new();
        let mut trainer = Trainer::new(model, data, 7, isa).unwrap();
        let mut note = |_: &Trainer<'_>, event: Event<'_>| {
            if let Event::Step { done, .. } = event {
                losses.push(done.loss);
            }
            Ok(())
        };
        trainer.run(Some(1), &AtomicBool::new(false), &mut note).unwrap();
        assert_eq!(losses, [want], "{augment:?}");
    }
}
