#include "runtime/checkpoint/checkpoint_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"
#include "base/safetensors.h"
#include "comm/collectives.h"

namespace cartesian {

/// Copies of the tensors that this rank writes.
struct CheckpointWriter::Snapshot {
  struct Entry {
    std::string name;
    std::vector<std::int64_t> shape;
    std::size_t begin = 0;
    std::size_t size = 0;
  };
  std::vector<Entry> entries;
  std::vector<float> weights;
  std::vector<float> first_moments;
  std::vector<float> second_moments;
};

struct CheckpointWriter::WriteJob {
  CheckpointInfo info;
  Snapshot snapshot;
  std::vector<ShardRecord>
      records;  ///< model file, optimizer file; empty if this rank has no tensors
  std::exception_ptr failure;
  std::atomic<bool> done = false;
  std::thread thread;
};

namespace {

using Entry = std::pair<std::string, SafetensorsEntry>;

std::vector<std::int64_t> dims_of(const Shape& shape) {
  std::vector<std::int64_t> dims;
  for (int i = 0; i < shape.rank(); ++i) {
    dims.push_back(shape[i]);
  }
  return dims;
}

/// The rank that writes each of parameters.tensors(): an expert's first replica writes it; the
/// dense part is dealt out by size.
std::vector<int> writers(const ParameterStore& parameters, int ranks) {
  std::vector<int> result;
  std::vector<std::int64_t> load(static_cast<std::size_t>(ranks), 0);
  auto expert = parameters.experts().begin();
  for (const NamedTensor& tensor : parameters.tensors()) {
    if (tensor.offset < parameters.dense_size()) {
      const auto lightest = std::ranges::min_element(load);
      *lightest += tensor.shape.numel();
      result.push_back(static_cast<int>(lightest - load.begin()));
      continue;
    }
    while (tensor.offset >= expert->end) {
      ++expert;
    }
    result.push_back(expert->replicas.front());
  }
  return result;
}

ElementRange elements_of(const NamedTensor& tensor) {
  return {tensor.offset, tensor.offset + tensor.shape.numel()};
}

std::span<float> range_of(std::span<float> array, const ElementRange& range) {
  return array.subspan(static_cast<std::size_t>(range.begin),
                       static_cast<std::size_t>(range.size()));
}

/// Brings one tensor's moments from the ranks that have them to the one that writes it.
class MomentMessages {
 public:
  MomentMessages(Transport& transport, ParameterStore& parameters)
      : transport_(transport), parameters_(parameters), group_{{"checkpoint"}, {}, {}} {}

  /// Every rank adds every dense tensor, in the same order. On the rank `writer`, `first` and
  /// `second` take the whole.
  void add(const NamedTensor& tensor, int writer, std::span<float> first, std::span<float> second) {
    const int ranks = parameters_.sharded() ? transport_.size() : 1;
    const int me = transport_.rank();
    for (int rank = 0; rank < ranks; ++rank) {
      const ElementRange part =
          intersect(elements_of(tensor), parameters_.dense_share(rank, ranks));
      const bool here = !parameters_.sharded() || rank == me;
      const ElementRange place{part.begin - tensor.offset, part.end - tensor.offset};
      if (part.size() == 0) {
        continue;
      }
      if (here && writer == me) {
        std::ranges::copy(parameters_.first_moments(part), range_of(first, place).begin());
        std::ranges::copy(parameters_.second_moments(part), range_of(second, place).begin());
      } else if (parameters_.sharded() && here) {
        group_.sends.push_back({writer, std::as_bytes(parameters_.first_moments(part))});
        group_.sends.push_back({writer, std::as_bytes(parameters_.second_moments(part))});
      } else if (writer == me) {
        group_.recvs.push_back({rank, std::as_writable_bytes(range_of(first, place))});
        group_.recvs.push_back({rank, std::as_writable_bytes(range_of(second, place))});
      }
    }
  }

  void exchange() { transport_.exchange(std::move(group_)); }

 private:
  Transport& transport_;
  ParameterStore& parameters_;
  MessageGroup group_;
};

/// Writes one file of tensors durably.
ShardRecord write_shard(FileSystem& files, const Path& directory, const std::string& name,
                        const std::vector<Entry>& entries) {
  ShardRecord record;
  record.file = name;
  for (const auto& [tensor, entry] : entries) {
    record.tensors.push_back(tensor);
    record.bytes += static_cast<std::int64_t>(entry.bytes.size());
  }
  const auto file = files.create(directory / name);
  record.hash = write_safetensors(*file, entries, {{"format", "pt"}});
  file->sync();
  file->close();
  return record;
}

/// A small file, and its line in checksums.json.
void write_text(FileSystem& files, const Path& path, const std::string& text,
                nlohmann::json& checksums) {
  const auto file = files.create(path);
  file->append(text);
  file->sync();
  file->close();
  checksums[path.filename().string()] = hash_hex(hash_bytes(text));
}

}  // namespace

CheckpointWriter::CheckpointWriter(FileSystem& files, Transport& transport, Path directory)
    : files_(files), transport_(transport), directory_(std::move(directory)) {}

CheckpointWriter::~CheckpointWriter() {
  if (job_ && (*job_)->thread.joinable()) {
    (*job_)->thread.join();
  }
}

Path CheckpointWriter::temporary_path(std::int64_t step) const {
  return directory_ / (".tmp-" + checkpoint_name(step));
}

void CheckpointWriter::begin(ParameterStore& parameters, CheckpointInfo info) {
  check(!in_progress(), "one checkpoint is written at a time");
  auto job = std::make_unique<WriteJob>();
  job->info = std::move(info);
  Snapshot& snapshot = job->snapshot;
  fill(parameters, snapshot);
  agree(transport_, {"checkpoint"}, [&] {
    if (transport_.rank() == 0) {
      files_.remove_all(temporary_path(job->info.state.step));
      files_.create_directories(temporary_path(job->info.state.step));
    }
  });
  job_ = std::move(job);
  WriteJob& started = **job_;
  started.thread = std::thread([this, &started] {
    try {
      write_shards(started);
    } catch (...) {
      started.failure = std::current_exception();
    }
    started.done = true;
  });
}

void CheckpointWriter::fill(ParameterStore& parameters, Snapshot& snapshot) {
  const std::vector<int> writer = writers(parameters, transport_.size());
  std::size_t size = 0;
  for (std::size_t i = 0; i < writer.size(); ++i) {
    const NamedTensor& tensor = parameters.tensors()[i];
    const auto elements = static_cast<std::size_t>(tensor.shape.numel());
    if (writer[i] == transport_.rank()) {
      snapshot.entries.push_back({tensor.name, dims_of(tensor.shape), size, elements});
      size += elements;
    }
  }
  for (std::vector<float>* values :
       {&snapshot.weights, &snapshot.first_moments, &snapshot.second_moments}) {
    values->resize(size);
  }
  MomentMessages messages(transport_, parameters);
  auto entry = snapshot.entries.begin();
  for (std::size_t i = 0; i < writer.size(); ++i) {
    const NamedTensor& tensor = parameters.tensors()[i];
    const bool mine = writer[i] == transport_.rank();
    const auto part = [&](std::vector<float>& values) {
      return mine ? std::span(values).subspan(entry->begin, entry->size) : std::span<float>();
    };
    const std::span<float> first = part(snapshot.first_moments);
    const std::span<float> second = part(snapshot.second_moments);
    const ElementRange elements = elements_of(tensor);
    if (tensor.offset < parameters.dense_size()) {
      messages.add(tensor, writer[i], first, second);
    } else if (mine) {
      std::ranges::copy(parameters.first_moments(elements), first.begin());
      std::ranges::copy(parameters.second_moments(elements), second.begin());
    }
    if (mine) {
      std::ranges::copy(range_of(parameters.weights(), elements), part(snapshot.weights).begin());
      ++entry;
    }
  }
  messages.exchange();
}

bool CheckpointWriter::written() const { return job_ && (*job_)->done; }

void CheckpointWriter::write_shards(WriteJob& job) {
  const Snapshot& snapshot = job.snapshot;
  if (snapshot.entries.empty()) {
    return;
  }
  const auto entry = [](const Snapshot::Entry& from, const std::vector<float>& values,
                        const std::string& prefix) {
    const std::span<const float> range = std::span(values).subspan(from.begin, from.size);
    return Entry{prefix + from.name,
                 {.dtype = "F32", .shape = from.shape, .bytes = std::as_bytes(range)}};
  };
  std::vector<Entry> weights;
  std::vector<Entry> moments;
  for (const Snapshot::Entry& from : snapshot.entries) {
    weights.push_back(entry(from, snapshot.weights, ""));
    moments.push_back(entry(from, snapshot.first_moments, "exp_avg."));
    moments.push_back(entry(from, snapshot.second_moments, "exp_avg_sq."));
  }
  const Path directory = temporary_path(job.info.state.step);
  const std::string part =
      fmt::format("{:05}-of-{:05}.safetensors", transport_.rank() + 1, transport_.size());
  job.records.push_back(write_shard(files_, directory, "model-" + part, weights));
  job.records.push_back(write_shard(files_, directory, "optimizer-" + part, moments));
}

void CheckpointWriter::wait() {
  check(in_progress(), "wait() follows begin()");
  WriteJob& job = **job_;
  wait_patiently(transport_, {"checkpoint"}, [&job] { return job.done.load(); });
  if (job.thread.joinable()) {
    job.thread.join();
  }
}

Path CheckpointWriter::commit() {
  wait();
  const std::unique_ptr<WriteJob> job = std::move(*job_);
  job_.reset();
  agree(transport_, {"checkpoint"}, [&] {
    if (job->failure) {
      std::rethrow_exception(job->failure);
    }
  });
  std::vector<std::vector<ShardRecord>> shards;
  for (const std::string& records : all_gather(transport_, to_json(job->records), {"checkpoint"})) {
    shards.push_back(parse_shard_records(records, "shard records"));
  }
  agree(transport_, {"checkpoint"}, [&] {
    if (transport_.rank() == 0) {
      finish_directory(*job, shards);
    }
  });
  return directory_ / checkpoint_name(job->info.state.step);
}

void CheckpointWriter::finish_directory(const WriteJob& job,
                                        const std::vector<std::vector<ShardRecord>>& shards) {
  const Path temporary = temporary_path(job.info.state.step);
  std::vector<ShardRecord> model;
  std::vector<ShardRecord> optimizer;
  nlohmann::json checksums = nlohmann::json::object();
  for (const std::vector<ShardRecord>& records : shards) {
    if (!records.empty()) {
      model.push_back(records.at(0));
      optimizer.push_back(records.at(1));
    }
    for (const ShardRecord& record : records) {
      checksums[record.file] = hash_hex(record.hash);
    }
  }
  write_text(files_, temporary / kConfigFile, to_config_json(job.info.model), checksums);
  write_text(files_, temporary / kIndexFile, index_json(model), checksums);
  write_text(files_, temporary / kOptimizerIndexFile, index_json(optimizer), checksums);
  write_text(files_, temporary / kTrainerFile, to_json(job.info.state), checksums);
  if (!job.info.tokenizer_json.empty()) {
    write_text(files_, temporary / kTokenizerFile, job.info.tokenizer_json, checksums);
  }
  nlohmann::json unlisted;
  write_text(files_, temporary / kChecksumsFile,
             nlohmann::json{{"algorithm", "xxh3-64"}, {"files", checksums}}.dump(2) + "\n",
             unlisted);
  files_.sync_directory(temporary);
  const Path complete = directory_ / checkpoint_name(job.info.state.step);
  if (files_.exists(complete)) {
    remove_checkpoint(files_, directory_, job.info.state.step);
  }
  files_.rename(temporary, complete);
  files_.sync_directory(directory_);
}

}  // namespace cartesian
