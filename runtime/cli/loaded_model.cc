#include "runtime/cli/loaded_model.h"

#include "comm/collectives.h"
#include "runtime/model/model_memory.h"
#include "runtime/thread_count.h"

namespace cartesian {

void add_load_options(CLI::App& command, LoadOptions& options) {
  command.add_option("--dtype", options.dtype, "Of activations and matrix products")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  command
      .add_option(
          "--threads", options.threads,
          "Threads per rank; OMP_NUM_THREADS, or its share of the host's processors, unless given")
      ->check(CLI::PositiveNumber);
}

LoadedModel::LoadedModel(Job& job, const Path& checkpoint, const LoadOptions& options)
    : topology_(find_topology(job.transport, {})) {
  const int ranks_here = ranks_on_host(job.transport);
  std::optional<CheckpointReader> reader;
  agree_patiently(job.transport, {"checkpoint"}, [&] {
    reader.emplace(job.files, checkpoint);
    if (job.is_root()) {
      reader->verify(/*with_optimizer=*/false);
    }
    check_model_memory(reader->model(), topology_.ranks(), ranks_here);
    placement_ = make_placement(job.files, reader->model(), {}, topology_);
  });
  rank_.emplace(reader->model(), *placement_, topology_, job.transport, job.metrics, job.clock,
                ModelRankOptions{.dtype = options.dtype == "bfloat16" ? DType::bf16 : DType::f32,
                                 .threads = threads_per_rank(job.transport, options.threads)});
  agree_patiently(job.transport, {"checkpoint"},
                  [&] { reader->read_weights(rank_->parameters()); });
  rank_->pack();
}

}  // namespace cartesian
