"Kill a piece of work again and again at random moments, until it has ended all the same."
import multiprocessing, random, signal, time

context = multiprocessing.get_context("forkserver")  # a child starts with the slow imports done, and inherits no thread
context.set_forkserver_preload(["torch", "transformers", "sklearn.metrics", "torchmetrics.functional.classification",
                                "avss_nb.answering.evaluator", "avss_nb.data.teaching"])

def run_with_kills(
    target,  # module-level function: works to the end, or is killed and goes on when called again
    args=(),  # to be pickled
    kills: int = 10,  # processes killed at work, at least
    seed: int = 0,
    done=lambda: 0,  # how much of the work is on the disk
    growth: int = 1,  # a process dies after 1 to so many units of work (in the measure of `done()`) …
    longest: float = 0.03,  # … and a random time of at most so many seconds more
    patience: float = 60,  # s in which nothing grows before this is an error
) -> list[int]:  # `done()` after each kill, and at the end
    "Start, SIGKILL and start again. Three in four die at work; the others as they start, within `longest`."
    rng, history, at_work = random.Random(seed), [done()], 0
    while True:
        early, last = rng.random() < 0.25, at_work >= kills
        before, grown, process = done(), rng.randint(1, growth), context.Process(target=target, args=args, daemon=True)
        process.start()
        try:
            seen, since = before, time.monotonic()
            while process.is_alive() and not early and (last or done() < before + grown):
                if done() > seen: seen, since = done(), time.monotonic()
                assert time.monotonic() - since < patience, f"no more than {seen} was done in {patience} s"
                time.sleep(0.002)
            if process.is_alive(): time.sleep(rng.uniform(0, longest))
        finally:
            process.kill()
            process.join()
        history.append(done())
        if process.exitcode == 0:
            assert at_work >= kills, f"the work ended after {at_work} kills; give it more to do"
            return history
        assert process.exitcode == -signal.SIGKILL, f"the work failed with exit code {process.exitcode}"
        at_work += not early
