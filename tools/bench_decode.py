"""Throughput of greedy decoding with the cache (prompt 32, 128 new tokens); prints one JSON line.

python tools/bench_decode.py --shape tiny --batch 1 [--weights int8] [--seconds 20]
"""

from bench_step import config, drive, parse

PROMPT, NEW = 32, 128


def main() -> None:
    def options(parser):
        parser.add_argument("--batch", type=int, default=1)
        parser.add_argument("--weights", choices=("float", "int8"), default="float")

    args = parse(options, __doc__)
    import jax
    import numpy as np

    from chinchilla_jax.inference.engine import Engine
    from chinchilla_jax.inference.sampling import Rows, Sampling
    from chinchilla_jax.parallel.host import keep_freed_memory
    from chinchilla_jax.training.program import Program

    keep_freed_memory()
    program = Program(config(args))
    cfg = program.config.model
    engine = Engine(cfg, cfg.vocab_size, form=args.weights)
    rows = Rows.of(Sampling(temperature=0), range(args.batch))
    split = engine.prepare(program.initial().params)
    prompts = np.random.default_rng(1).integers(0, cfg.vocab_size, (args.batch, PROMPT))

    def step() -> None:
        made_BN = np.concatenate(list(engine.stream(split, prompts.tolist(), NEW, rows)), axis=1)
        assert made_BN.shape == (args.batch, NEW)

    drive(
        "chinchilla_jax_decode",
        args,
        step,
        args.batch * NEW,
        batch=args.batch,
        weights=args.weights,
        version=f"jax {jax.__version__}",
    )


if __name__ == "__main__":
    main()
