"""Where `triphase run` may refuse something, by the function that does, and why `check` says it too, or cannot.

The functions are those of the modules that `run` imports in which an error of Triphase is raised. A new one must be
judged here: `check` refuses the same, which a case of `test_preflight` shows, or a reason says why it cannot.
"""

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

from tests.imports import graph_of, reachable, sources_of

from triphase.rewards.registry import KINDS

PACKAGE = Path(__file__).parents[2] / "src" / "triphase"
STARTS = ("triphase.cli.run", "triphase.runs.execution", *(kind.module for kind in KINDS.values()))

# What is read or asked → cases of `test_preflight` that show it, and the functions, which both commands call.
SHOWN: dict[str, tuple[tuple[str, ...], str]] = {
    "settings, by one reader": (
        ("an unknown setting", "a value that is not allowed"),
        """
        cli.arguments: parse_overrides
        settings.loading: load_settings _validated _rename_old _refuse_unknown _refuse_odd_numbers
        settings.overrides: override _inside
        settings.places: _template expanded
        settings.source: read_source parse_source _compose _value _mapping _scalar
        """,
    ),
    "requirements without a record": (
        ("no room for any prompt", "no such tracker", "a critic that starts from an absent reward model",
         "servers and a model that is merged"),
        """
        datacheck.demands: require_settings _require_start_of_critic
        datacheck.served_base: require_files
        monitoring.trackers: require_trackers
        rollouts.serving: require_vllm
        """,
    ),
    "what phases require of the records": (
        ("no prompt held out", "all prompts held out", "no comparison held out", "all comparisons held out",
         "no data at all", "a scorer and no prompts", "no prompts", "no preferences", "all demonstrations held out",
         "a witness and one prompt"),
        """
        datacheck.demands: require_demonstrations
        runs.preflight: examine_run
        """,
    ),
    "records, read, rendered and encoded; errors in a file are reported together": (
        ("no such file", "a damaged line", "ids shared by two files", "ids shared by prompts and preferences",
         "template refuses a demonstration", "template refuses a demonstration that begins with the assistant",
         "template refuses a prompt", "template refuses a comparison", "a demonstration is too long",
         "a prompt is too long", "a comparison is too long"),
        """
        datacheck.examiner: Examiner.demonstrations Examiner.prompts Examiner.preferences
        tokens.controls: ControlTokens._letters
        tokens.encoding: encode_prompt encode_demonstrations _encode_text encode_groups
        tokens.rendering: render template_of
        tokens.sandbox: Sandbox._started
        tokens.template: Template._embedded
        datacheck.near_duplicates: MinHashTexts.__init__
        datacheck.run_data: RunData._read RunData._settle
        records.arrow_rows: _batches saved_rows
        records.arrow_sizes: require_bounded
        records.csv_rows: csv_rows _Lines.__iter__ _header
        records.hub_rows: hub_rows _data_set
        records.json_rows: json_list_or_lines _require_lines _parsed _object _json_list _require_records
        records.json_text: JsonText.value JsonText.damaged JsonText._grown JsonText._more
        records.lines: Row.refuse numbered_lines without_mark _unpacked_zst decoded require_usable_columns
        records.parquet_rows: parquet_rows _checked_texts
        records.paths: is_file_name data_files _require_one_split _require_each_once data_file
        records.reading: _records
        records.source_rows: _rows _file_rows _renamed _require_content
        """,
    ),
    "the model, without its weights": (
        ("no such model", "no such embedded model", "no such layers", "an SFT policy from nowhere"),
        """
        datacheck.tokenizer_checks: open_template
        demo.cache: cache_of cached_directory
        demo.embedded: require_embedded
        demo.smollm: _convert
        models.adapters: Adapters.__init__
        models.backbone: _name_of_layers _name_of_final_norm
        models.chain: chain_of own_adapter errors_under base_of
        models.checking: require_positions require_rows
        models.files: read_object check_files tensor_sizes weight_files _check_kind _check_sizes
        models.language_head: logit_map_of
        models.loading: choose_device require_card
        models.merging: check_adapter
        models.pretrained: opening open_config open_tokenizer open_weights
        models.places: directory_of _refuse_pipes fetched
        models.quantization: linear_maps
        tokens.shipped_templates: give_template
        tokens.template: _using Template.also_ends Template._find_end Template._find_padding
        """,
    ),
    "artifacts that are taken from elsewhere": (
        ("an SFT policy from nowhere", "a reward model from nowhere"),
        """
        datacheck.reuse_checks: _place _require_kind _require_base _require_sizes _require_tokenizer
        runs.reused_artifacts: require_taken
        """,
    ),
    "the scorer, opened and asked for two scores": (
        ("no such function", "a function that raises", "a judge without an address", "a scorer's token is not set",
         "a variant's scorer's token is not set", "no such kind of scorer"),
        """
        models.files: check_classifier_files
        rewards.classifier: *
        rewards.function: *
        rewards.importing: imported require_file
        rewards.judge: JudgeScorer.__init__ JudgeScorer.examine
        rewards.judge_client: JudgeClient.__init__
        rewards.options: options_of
        rewards.process: FunctionProcess.open
        rewards.python_object: *
        rewards.registry: kind_of
        rewards.remote: *
        rewards.rule: open_scorer
        """,
    ),
    "servers, asked whether they are up": (
        ("a server is away", "a server's token is not set", "a scorer's token is not set",
         "a variant's scorer's token is not set"),
        """
        rollouts.client: *
        rollouts.vllm_server: VLLMServer._require_response
        """,
    ),
    "a run that has begun": (
        ("test_resume_checks", "test_directory", "a run in a file's place"),
        """
        records.files: disk_errors fingerprint
        records.paths: refuse_pipes refuse_links
        runs.directory: RunDirectory._changed_settings RunDirectory._changed_data _require_place
        runs.kept_engine: require_same_engine
        runs.provenance: read_config
        runs.shared: require_shared
        runs.store_contents: require_contents require_campaigns examine_store
        store.database: open_store require_one_name _url Store._require_same_schema Store._translated
        store.upgrade: upgrade _without_foreign_keys
        training.artifacts: taken_of
        """,
    ),
}  # fmt: skip

# Why `check` cannot know → the functions.
REASONS: dict[str, str] = {
    "weights are read, and the model runs, first in a run": """
        models.loading: require_finite
        models.sharding_checks: require_exact_division require_no_own_inputs _compare
        """,
    "it depends on what training does": """
        monitoring.memory: memory_errors
        phases.reward_calibration: _calibration_of
        phases.rewards: shape_rewards
        phases.sampler: against_sampler
        rollouts.decoding: _go_without
        runs.checked_score: CheckedScore.__call__
        runs.references: reference_samples
        runs.reward_gate: require_reward_model
        training.step: Updater.skip_step
        """,
    "it depends on the answers of people, or on what has been sampled": """
        runs.empty_responses: usable_groups
        runs.labeling: _require_rankings
        runs.reward_training: _halves
        """,
    "it depends on what a server does later": """
        rollouts.fleet: Fleet.take Fleet._require_patience
        rollouts.server_checks: Proof.begin Proof.pushed
        rollouts.servers: ServerGenerator._bring_up_to_date
        rollouts.started: StartedServers.require_running StartedServers._start StartedServers._await_ready
            StartedServers._is_ready
        rollouts.vllm_server: VLLMServer.load VLLMServer.sample VLLMServer.look VLLMServer._choice VLLMServer._logprobs
        """,
    "files of a run were damaged or removed; the line says how to have them made again": """
        monitoring.metrics: _parsed
        records.files: read_json_lines
        reports.answers_over_time: _courses
        reports.contents: read_run _parsed _records
        reports.people_wins: people_wins
        reports.file_shapes: require_shape shaped_rows
        reports.summary_file: read_summary
        rewards.kept_answers: _read
        rewards.weighted: WeightedScorer._units_with _read
        training.artifacts: read
        training.checkpoint: load_checkpoint
        training.reward_finals: _residual_in _ensemble_in
        training.state: TrainingState._read
        training.weight_differences: unpacked
        """,
    "another process holds the run": """
        runs.locking: _held
        """,
    "options of `run` alone: several processes, seeds, a verification": """
        cli.arguments: require_run
        cli.launching: _port
        cli.run: run
        cli.sweep: require_parallel
        runs.ranks: ranks_of require_alike show_directory
        runs.seeds: require_count
        runs.sweeping: *
        settings.parallel: require_work
        training.distributed.environment: place_in
        training.distributed.fsdp2: Sharded._load_too _Agreed.__call__
        training.distributed.joining: _are_divided _met _take_card
        training.distributed.replicated: Replicated._await Replicated._answered
        training.distributed.agreed_needs: Rounds.say Rounds._require_life
        training.distributed.types: Strategy.require_same
        """,
    "another command; `run` only imports it": """
        cli.runs: runs
        cli.sweep: sweep
        datacheck.agenda: require_step
        labeling.exchange.importing: import_file _write _refuse_gold_of_ended
        labeling.work.campaigns: *
        labeling.work.item_plan: add_gold
        planning.machine: *
        planning.plan: traceable
        runs.best_checkpoint: read_choice step_of
        runs.branching: make_branch _known_phases _whole _require_unchanged
        runs.checkpoint_selection: choose_best _candidate
        runs.checkpoints: require_checkpoint load_policy_at
        runs.impact: require_ppo require_program
        runs.opening: open_policy require_policy open_any
        store.copying: copy_file
        """,
    "an invariant: an earlier check, or the order of the steps, excludes it": """
        datacheck.served_base: served_base
        models.adapters: Adapters.load Adapters.merge
        models.sharded_loading: copy_of_parts
        models.critics: AdapterCritic.states
        models.policies: _load
        phases.critic: start_critic
        phases.estimators: require_same_estimator
        records.unique_prompts: PromptRegistry.add
        rollouts.vllm_server: rank_limit
        runs.session: Run.prompts Run.model
        store.checks: check_answers
        store.labels: insert_prompts insert_responses _new_rows
        store.side_tables: insert_side_rows
        """,
}


def judged() -> dict[str, str]:
    """Function (module.name; `*` for all of a module) → what is said of it.

    Raises:
        AssertionError: one is judged twice.
    """
    found: dict[str, str] = {}
    for reason, listed in [*((what, listed) for what, (_, listed) in SHOWN.items()), *REASONS.items()]:
        module = ""
        for word in listed.split():
            if word.endswith(":"):
                module = word[:-1]
                continue
            name = f"{module}.{word}"
            assert name not in found, f"{name} is judged twice"
            found[name] = reason
    return found


def judgment_of(function: str) -> str | None:
    """What is said of one function, by its own name or that of its module."""
    known, parts = judged(), function.split(".")
    names = [function, *(f"{'.'.join(parts[:count])}.*" for count in range(1, len(parts)))]
    return next((known[name] for name in names if name in known), None)


def refusing_functions() -> set[str]:
    """module.function of each raise of an own error (or of one that a function makes) in what `run` imports."""
    sources = sources_of(PACKAGE)
    graph = graph_of(sources)
    own = _own_errors(sources)
    return {
        f"{name.removeprefix('triphase.')}.{function}"
        for name in set(STARTS).union(*(reachable(start, graph) for start in STARTS))
        if "raise " in sources[name]
        for function, error in _raises(ast.parse(sources[name]), "")
        if error in own or (error.lstrip("_")[:1].islower() and not hasattr(builtins, error))
    }


def _raises(node: ast.AST, inside: str) -> Iterator[tuple[str, str]]:
    """(function, name of what is called to make the error) of every raise below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            yield inside, ast.unparse(child.exc.func).rpartition(".")[2]
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _raises(child, f"{inside}.{child.name}".lstrip(".") if named else inside)


def _own_errors(sources: dict[str, str]) -> set[str]:
    above = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for source in sources.values()
        if "Error)" in source or "Refused)" in source
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }
    found = {"TriphaseError"}
    while more := {name for name, bases in above.items() if bases & found} - found:
        found |= more
    return found
