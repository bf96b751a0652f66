"""The published reports as executable claims: `fastnet reproduce R1`, `fastnet reproduce R2 E14`.

A report is a module of this package, `r1`, `r2`, ...; the folder is the list. Its docstring says what the report is. It
holds `EXPERIMENTS`, a tuple of `Experiment` (see `fastnet.reports.experiment`), in the order in which they are shown.

To add an experiment, write one more into its report's module. Most are data:

    Experiment("E07", "3 layers with batch norm, 2 cycles",
               cells=(Cell("3 layers, BN", replace(BASE, model="mlp3-bn"), reported=0.5323),),
               decisions=("A24",))

- A `Training` says everything about a run but its seed (`fastnet.reports.training`); cells that hold equal ones share
  their runs. `Cell(label, training, metric, reported)` is a line of the table; `Effect` says which cell the report
  claims to be better.
- Whatever is no training (a gradient check, statistics of a trained model, a landscape) is a `Task`
  (`fastnet.reports.task`): a dotted function name and plain arguments, run in a worker, its JSON-able answer kept. A
  task may need finished trainings. `Experiment.tasks` lists them, and `Experiment.rows` makes lines of the table of
  what they found.
- What depends on earlier results (a fine search around the best) is `Experiment.more`: results -> further trainings or
  tasks, asked again until nothing new comes.
- `Experiment.figures` are functions (results, folder) -> figures drawn; those in `fastnet.reports.figures` serve most.
- A decision that an experiment rests on is a line of `fastnet.reports.decisions`.
- `Experiment.quick` replaces the reductions of `--scale quick` where they would not do (`fastnet.reports.scale`).

Questions of theory are demonstrations of their own, a module each in `fastnet.reports.theory`: `fastnet reproduce
theory`, or behind the experiments of R4, which asks them.

Whatever is needed is run once, several at a time, each in a directory of its own (`fastnet.reports.running`); verdicts
are those of `fastnet.reports.verdicts`.
"""
