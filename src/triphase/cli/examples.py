"""An example or two of each command, shown under its options."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("triphase demo --tiny",),
    "init": ("triphase init instructions.jsonl preferences.csv --to my-run.yaml",),
    "run": ("triphase run my-run.yaml", "triphase run my-run.yaml --seeds 3 --ppo.kl-coefficient 0.02"),
    "check": ("triphase check my-run.yaml --quarantine bad.jsonl",),
    "plan": ("triphase plan my-run.yaml", "triphase plan my-run.yaml --gpus 8 --card h100 --price 2.5"),
    "sft": ("triphase sft my-run.yaml",),
    "sample": ("triphase sample my-run.yaml",),
    "reward": ("triphase reward my-run.yaml --learning-curve",),
    "ppo": ("triphase ppo my-run.yaml",),
    "evaluate": ("triphase evaluate my-run.yaml --checkpoint best",),
    "branch": ("triphase branch runs/my-run less-kl --ppo.kl-coefficient 0.01 --run",),
    "extend": ("triphase extend runs/my-run --ppo.iterations 40",),
    "sweep": ("triphase sweep runs/my-run --ppo.kl-coefficient 0.02,0.1 --ppo.seed 0,1",),
    "study": ("triphase study my-run.yaml --seeds 3 --best-of 64",),
    "report": ("triphase report runs/my-run",),
    "runs": ("triphase runs --json",),
    "diff": ("triphase diff runs/my-run runs/less-kl",),
    "compare": ("triphase compare runs/my-run/sft runs/my-run/ppo --by reward",),
    "score": ("triphase score runs/my-run pairs.jsonl --to scored.jsonl",),
    "chat": ("triphase chat runs/my-run --against runs/my-run/sft",),
    "export": ("triphase export runs/my-run --to model", "triphase export runs/my-run --to scorer --what reward"),
    "push": ("triphase push model organization/name",),
    "rollouts": ("triphase rollouts serve my-run.yaml --port 8000",),
    "settings": ("triphase settings ppo.kl_coefficient",),
    "doctor": ("triphase doctor --json",),
    "completion": (
        "triphase completion bash > ~/.local/share/bash-completion/completions/triphase",
        "triphase completion zsh > ~/.zfunc/_triphase",
        "triphase completion fish > ~/.config/fish/completions/triphase.fish",
    ),
    "explain": ("triphase explain --reward 2 --value 0.5",),
    "label serve": ("triphase label serve runs/my-run",),
    "label import": ("triphase label import labels.sqlite comparisons.parquet",),
    "label export": ("triphase label export runs/my-run rankings.jsonl --format rankings",),
    "label stats": ("triphase label stats runs/my-run",),
    "label simulate": ("triphase label simulate runs/my-run --labelers 5",),
    "label sample": ("triphase label sample runs/my-run HuggingFaceTB/SmolLM2-360M-Instruct --count 2",),
    "label score": ("triphase label score runs/my-run",),
    "label campaigns add": (
        "triphase label campaigns add runs/my-run honesty --task rating --share 30 --guidelines honesty.md",
        "triphase label campaigns add runs/my-run new-policy --task policies --models sft --models ppo",
    ),
    "label campaigns list": ("triphase label campaigns list runs/my-run",),
    "label campaigns set": ("triphase label campaigns set runs/my-run honesty --state paused",),
    "label users add": ("triphase label users add runs/my-run ann",),
    "label users list": ("triphase label users list runs/my-run",),
    "label users pause": ("triphase label users pause runs/my-run ann --withdraw",),
    "label users reset": ("triphase label users reset runs/my-run ann",),
}


def examples_of(command: str) -> str:
    """The examples of a command, as displayed."""
    return "\n".join(["Examples:", *(f"  {line}" for line in EXAMPLES[command])])
