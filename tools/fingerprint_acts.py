"""The acts that ``fingerprints.py`` runs: command lines on tiny data, by name."""

from __future__ import annotations

NET = (
    "--network.width 8 --network.multipliers 1,2 --network.blocks 1"
    " --network.attention_factors 2 --network.head_channels 8"
)
CPU = (
    "--machine.accelerator cpu --machine.precision 32-true --machine.threads 1 --machine.workers 1"
)
TRAIN = (
    "--training.steps 4 --training.batch_size 4 --training.log_every 1"
    " --training.checkpoint_every 2 --training.validate_every 2"
)
FAST = TRAIN.replace("steps 4", "steps 2").replace("size 4", "size 2")
SIZE, PATCH = "--plan.size 32,32", "--plan.size 16,16,16"
PRETRAIN = f"pretrain @unlabelled {NET} {SIZE} {TRAIN} {CPU}"
PRETRAIN_3D = f"pretrain @scans {NET} {PATCH} {FAST} {CPU}"
FIT, FIT_3D = f"fit @films --labels 3 {TRAIN} {CPU}", f"fit @abdomen --labels 2 {FAST} {CPU}"
SCRATCH, SCRATCH_3D = f"{FIT} {NET} {SIZE}", f"{FIT_3D} {NET} {PATCH}"
ON_TEST, DRAW = f"@films --cases test {CPU}", f"--count 2 {CPU}"
DRAW_3D = f"--count 1 --steps 3 {CPU}"
CLASSIFY = f"classify @classes {SIZE} {TRAIN} {CPU}"


def _inside(group: str, words: str) -> str:
    """The same flags for a group that holds them, such as ``--dino.training.steps``."""
    return words.replace("--", f"--{group}.")


SYNTHESIZE = (
    f"synthesize @classes {SIZE} {TRAIN} {CPU} --dino.width 64 --dino.depth 1 --dino.patch 4"
    f" --dino.prototypes 32 --dino.local_crops 1 {_inside('dino', TRAIN)} --vae.channels 8,16"
    f" {_inside('vae', TRAIN)} --denoiser.channels 16,32 --denoiser.heads 2 --denoiser.context 16"
)
STUDY = f"study @films --labels 2 --draws 1 {_inside('finetune', f'{FAST} {CPU}')}"
STUDY_SCRATCH = f"{STUDY} {_inside('finetune', f'{NET} {SIZE}')}"
STUDY_PRETRAIN = (
    f"{STUDY} --unlabelled @unlabelled {_inside('pretrain', f'{NET} {SIZE} {FAST} {CPU}')}"
)
AUGMENT = (
    f"augment @classes --ratios 0,1 --pools 6 --draws 1 --samples 20 --drawing.steps 3"
    f" {_inside('classify', f'{SIZE} {FAST} {CPU}')}"
)

VARIATIONS = {
    "x-start": "--diffusion.prediction_type x_start",
    "v": "--diffusion.prediction_type v",
    "learned-variance": "--diffusion.variance learned",
    "loss-aware": "--diffusion.timestep_sampling loss-aware",
    "linear": "--diffusion.schedule linear --diffusion.loss smooth-l1",
    "cosine-300": "--diffusion.schedule cosine --diffusion.num_train_timesteps 300",
    "zero-snr": "--diffusion.schedule scaled-linear --diffusion.prediction_type v"
    " --diffusion.zero_terminal_snr true --diffusion.min_snr_gamma 5",
    "bf16": "--machine.precision bf16-mixed",
    "micro-batch": "--training.micro_batch 1",
    "with": "--with @more --limit 8",
    "dropout": "--network.dropout 0.3",
    "attention": "--network.attention_factors 1,2 --network.blocks 2",
    "optimizer": "--training.optimizer adam --training.weight_decay 0.01 --training.decay step"
    " --training.warmup_steps 2 --training.decay_steps 3 --training.final_learning_rate 1e-5",
    "augmented": "--augmentation.rotate 10 --augmentation.scale 0.1 --augmentation.shear 0.05"
    " --augmentation.gamma 0.3 --augmentation.noise 0.1",
    "memory": "--machine.channels_last false --machine.checkpoint_activations true",
    "percentiles": "--plan.size 32,24 --plan.resize fit --plan.percentiles 1,99",
    "from": "--from @ddpm --training.seed 5",
}
STRATEGIES = [
    "recycle",
    "standard",
    "recycle-next",
    "self-condition",
    "self-condition-next",
    "none",
]
DRAWING = ["variation", "interpolate", "perturb", "from-image", "manifold"]
SEGMENTERS = ["scratch", "finetune", "films-64", "pixel", "dynunet", "diffusion-none"]
RESUMED = [
    "ddpm",
    "contrastive",
    "coordinates",
    "scratch",
    "probe",
    "diffusion-recycle",
    "synth",
    "classify",
]

ACTS: dict[str, str] = {
    "films": "anatomy bitewing --count 12 --size 32,32 --seed 1",
    "unlabelled": "anatomy bitewing --count 16 --size 32,32 --seed 2 --labelled false",
    "more": "anatomy bitewing --count 4 --size 32,32 --seed 1 --start 100",
    "chest": "anatomy chest --count 16 --size 32,32 --seed 3",
    "classes": "class-folders @chest",
    "abdomen": "anatomy abdomen --count 8 --size 20,20,20 --seed 4",
    "scans": "anatomy abdomen --count 8 --size 20,20,20 --seed 5 --labelled false",
    "ddpm": PRETRAIN,
    **{f"ddpm-{name}": f"{PRETRAIN} {flags}" for name, flags in VARIATIONS.items()},
    "ddep": f"{PRETRAIN} --objective ddep",
    "ddep-from": f"{PRETRAIN} --objective ddep --from @ddpm",
    "restorative": f"{PRETRAIN} --objective restorative",
    "contrastive": f"{PRETRAIN} --objective contrastive --contrast.voxels 64",
    "contrastive-from": f"{PRETRAIN} --objective contrastive --contrast.voxels 64 --from @ddpm",
    "ddpm-3d": PRETRAIN_3D,
    "ddep-3d": f"{PRETRAIN_3D} --objective ddep --from @ddpm-3d",
    "restorative-3d": f"{PRETRAIN_3D} --objective restorative",
    "contrastive-3d": f"{PRETRAIN_3D} --objective contrastive --contrast.voxels 64",
    "coordinates": f"{PRETRAIN} --objective coordinates --network.multipliers 1,2,2 --regressor.voxels 64",
    "coordinates-3d": f"{PRETRAIN_3D} --objective coordinates --network.multipliers 1,2,2"
    " --regressor.voxels 64 --regressor.crop 1.0 --regressor.landmarks @abdomen",
    "guided": f"{PRETRAIN} --coordinates @coordinates",
    "guided-3d": f"{PRETRAIN_3D} --coordinates @coordinates-3d",
    "sample": f"generate @ddpm {DRAW}",
    "sample-ddim": f"generate @ddpm-v {DRAW} --steps 5 --sampler ddim --seed 3",
    "sample-learned-variance": f"generate @ddpm-learned-variance {DRAW} --steps 5 --sampler ddpm",
    "sample-3d": f"generate @ddpm-3d {DRAW_3D} --sampler ddpm",
    "scratch": f"{SCRATCH} --method scratch",
    "scratch-dice-focal": f"{SCRATCH} --method scratch --loss.dice 1 --loss.focal 5",
    "scratch-with": f"{SCRATCH} --method scratch --with @more --draw 1",
    "scratch-micro-batch": f"{SCRATCH} --method scratch --training.micro_batch 1",
    "finetune": f"{FIT} --method finetune --from @ddpm",
    "finetune-raw": f"{FIT} --method finetune --from @ddpm --weights raw --timestep 100 --draw 2",
    **{
        f"finetune-{name}": f"{FIT} --method finetune --from @{name}"
        for name in ["ddep-from", "restorative", "contrastive", "guided", "ddpm-learned-variance"]
    },
    "films-64": f"{FIT} --method finetune --from films-64 {FAST}",
    "pixel": f"{FIT} --method pixel --from @ddpm",
    "dynunet": f"{FIT} {SIZE} --method dynunet",
    "scratch-3d": f"{SCRATCH_3D} --method scratch",
    "finetune-3d": f"{FIT_3D} --method finetune --from @ddpm-3d",
    "finetune-guided-3d": f"{FIT_3D} --method finetune --from @guided-3d",
    "dynunet-3d": f"{FIT_3D} {PATCH} --method dynunet",
    "probe": f"{FIT} --method probe --from @ddpm",
    "probe-linear": f"{FIT} --method probe --from @ddpm --heads linear --levels middle,0",
    "probe-sweep": f"{FIT} --method probe --from @ddpm --heads nonlinear,linear --timesteps 5,10"
    " --sweep 1,30 --sweep_levels true --noise_draws 2 --width 8",
    "probe-contrastive": f"{FIT} --method probe --from @contrastive",
    "probe-3d": f"{FIT_3D} --method probe --from @ddpm-3d --sweep 1 --sweep_levels true",
    "probe-guided-3d": f"{FIT_3D} --method probe --from @guided-3d",
    **{
        f"diffusion-{name}": f"{SCRATCH} --method diffusion --strategy {name}"
        for name in STRATEGIES
    },
    "diffusion-from": f"{FIT} --method diffusion --from @ddpm --with @more",
    "diffusion-ddim": f"{SCRATCH} --method diffusion --strategy standard --diffusion.sampling.sampler ddim"
    " --diffusion.sampling.steps 3 --diffusion.process.timestep_sampling uniform --loss.cross_entropy 1",
    "diffusion-recycle-3d": f"{SCRATCH_3D} --method diffusion --strategy recycle",
    "diffusion-none-3d": f"{SCRATCH_3D} --method diffusion --strategy none",
    **{f"predict-{name}": f"predict @{name} {ON_TEST}" for name in SEGMENTERS},
    "predict-probe": f"predict @probe {ON_TEST} --confidence",
    "predict-probe-linear": f"predict @probe {ON_TEST} --head linear",
    "predict-diffusion": f"predict @diffusion-recycle {ON_TEST} --samples 2 --uncertainty",
    "predict-self-condition": f"predict @diffusion-self-condition {ON_TEST} --seed 4",
    "predict-diffusion-ddim": f"predict @diffusion-standard {ON_TEST} --sampler ddim --steps 3",
    "predict-legacy": f"predict @diffusion-standard {ON_TEST} --legacy_timesteps true",
    "predict-ensemble": f"predict @scratch @finetune {ON_TEST} --uncertainty --confidence",
    "predict-vote": f"predict @scratch @diffusion-recycle {ON_TEST} --samples 2 --ensemble vote",
    "predict-3d": f"predict @finetune-3d @abdomen --confidence {CPU}",
    "predict-probe-3d": f"predict @probe-guided-3d @abdomen --cases test --overlap 0.25 {CPU}",
    "predict-diffusion-3d": f"predict @diffusion-recycle-3d @abdomen --cases test {CPU}",
    "evaluate": "evaluate @predict-scratch @films",
    "evaluate-3d": "evaluate @predict-3d @abdomen --tolerance 3",
    "synth": SYNTHESIZE,
    "synth-given": f"{SYNTHESIZE} --encoder @synth/encoder/model --from @synth/model",
    **{
        f"generate-{name}": f"generate @synth {DRAW} --strategy {name} --steps 4"
        for name in DRAWING
    },
    "generate-dpm": f"generate @synth {DRAW} --strategy variation --sampler dpm++ --steps 4"
    " --references @chest --guidance 1 --seed 2",
    "fake": f"generate @synth --count 16 --strategy interpolate --steps 2 {CPU}",
    "zeroshot": f"zeroshot @synth @chest --method diffseg {CPU}",
    "fidelity": f"judge @chest @fake --only fidelity --draws 10 {CPU}",
    "fidelity-own": f"judge @chest @fake --only fidelity --draws 10 --encoder @ddpm {CPU}",
    "memorization": f"judge @chest @fake --only memorization --pairs 2 {CPU}",
    "classify": CLASSIFY,
    "classify-labels": f"{CLASSIFY} --labels 6 --draw 1",
    "classify-with": f"{CLASSIFY} --with @fake --ratio 0.5 --network resnet18",
    "augment": f"{AUGMENT} --with @fake --ratios 0,0.5",
    "augment-drawn": f"{AUGMENT} --with @synth",
    "study": f"{STUDY} --from @ddpm --methods scratch,finetune",
    "study-others": f"{STUDY_SCRATCH} --methods scratch,dynunet",
    "study-denoised": f"{STUDY_PRETRAIN} --methods scratch,pixel,ddep,pseudo-labels,synthetic-labelled"
    " --synthetic @more --pseudo-labels 10",
    "study-probing": f"{STUDY_PRETRAIN} --methods scratch,diffusion,restorative --transfer linear"
    f" {_inside('probing', FAST)} --probing.probe.timesteps 10",
    "study-diffusion": f"{STUDY_SCRATCH} --methods none,recycle,ensemble --reference none"
    f" --samplers ddpm,ddim {_inside('diffusion', f'{NET} {SIZE} {FAST} {CPU}')}",
    "report": "info @study --report",
    **{f"{name}-resumed": f"resume @{name}" for name in RESUMED},
}
"""Command lines without ``--out``; ``@name`` is what another act left. Two are no commands: ``class-folders`` sorts
films into two classes, ``resume`` does an act again from its checkpoint in the middle; it has to end the same way."""
