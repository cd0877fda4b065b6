"""Training over each transport that `comm.intra` and `comm.inter` name: the same numbers, and the same care when a rank
is lost."""

import os
import signal
import unittest

from harness import CliTest


class Transports(CliTest):
    def losses(self, intra, inter, ranks, **changes):
        config, run = self.config(train__steps=20, comm__intra=intra, comm__inter=inter, **changes)
        self.run_program("train", config, ranks=ranks)
        return run.losses()

    def test_same_losses(self):
        """Sums run in rank order: what messages travel by cannot show, not even in the last bit."""
        common = dict(ranks=3, parallel__node_sizes=[1, 2], exchange__chunks=2)
        over_mpi = self.losses("mpi", "mpi", **common)
        for intra, inter in (("ucx", "ucx"), ("mpi", "ucx"), ("ucx", "auto")):
            self.assertEqual(self.losses(intra, inter, **common), over_mpi, (intra, inter))

    def test_alone(self):
        self.assertEqual(self.losses("ucx", "ucx", ranks=1), self.losses("auto", "auto", ranks=1))
        config, _ = self.config(comm__inter="mpi")
        self.assert_refused(("train", config), r"comm\.inter = \"mpi\".*mpirun")

    def test_a_bad_file_is_refused_once(self):
        for intra in ("ucx", "mpi"):
            config, _ = self.config(comm__intra=intra, comm__inter="ucx", parallel__placement="nowhere.json")
            self.assert_refused(("train", config), "nowhere", ranks=3)

    def test_killed(self):
        """A broken connection ends every wait at once: the deadline is far away. Between the nodes, it is enough."""
        for intra in ("ucx", "mpi"):
            with self.subTest(intra=intra):
                self.kill_one(comm__intra=intra, comm__inter="ucx", parallel__node_sizes=[1, 1, 1])

    def kill_one(self, **settings):
        config, run = self.config(comm__timeout_s=600, train__steps=100000, train__batch_sequences=96,
                                  train__micro_batch_sequences=3, valid__every=0, **settings)
        job = self.start("train", config, ranks=3, mpi={"options": ("--enable-recovery",)})
        self.wait_for_lines(job, run, 1)
        os.kill(job.ranks(3)[1], signal.SIGKILL)
        result = job.wait()
        self.assertEqual(result.rank_codes, {0: 1, 1: 128 + signal.SIGKILL, 2: 1}, result)
        for rank in (0, 2):
            self.assertRegex(result.err, rf"cartesian: rank {rank} \(\S+\): rank 1 \(\S+\) failed in [^:]+ at step \d+: "
                                         r"its connection broke")


if __name__ == "__main__":
    unittest.main(verbosity=2)
