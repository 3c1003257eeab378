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
    Images { c: 3, h: 6, w: 6, pixels, labels: (0..count as u32).map(|i| i % 3).collect(), photos: None }
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
    let mut hot = model.clone();
    hot.training.lr = 1e30;
    let mut trainer = Trainer::new(hot, &data, 1, Isa::Portable).unwrap();
    let end = trainer.run(None, &AtomicBool::new(false), &mut quiet);
    assert!(matches!(end, Err(TrainError::Diverged { .. })), "{end:?}");
    let mut checkpoint = Trainer::new(model, &data, 1, Isa::Portable).unwrap().checkpoint();
    checkpoint.classes[0] = "z".into();
    assert!(Trainer::resume(checkpoint, &data, Isa::Portable).is_err());
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
    std::fs::write(path.join("metrics.jsonl"), "{}\n").unwrap();
    assert!(RunFolder::resume(&path, 1).unwrap_err().to_string().contains("line 1"));
}
