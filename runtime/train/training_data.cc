#include "runtime/train/training_data.h"

#include <fmt/format.h>

#include "base/hash.h"
#include "comm/collectives.h"
#include "runtime/data/tokenizer.h"

namespace cartesian {

TrainingData::TrainingData(Job& job, const Config& config) {
  agree_patiently(job.transport, {"data"}, [&] {
    const auto open = [&](const std::string& prefix, std::unique_ptr<TokenFile>& file) {
      file = std::make_unique<TokenFile>(job.files, prefix);
      if (job.is_root()) {
        file->check_vocabulary(config.model.vocab_size);
      }
      return TokenWindows(*file, config.train.sequence_length);
    };
    train_.emplace(open(config.data.train, train_file_));
    samples_.emplace(*train_, static_cast<std::uint64_t>(config.train.seed),
                     config.data.order == "shuffled");
    if (!config.data.valid.empty()) {
      valid_.emplace(open(config.data.valid, valid_file_));
      check_same_tokenizer(job.files, tokenizer_path(config.data.train),
                           tokenizer_path(config.data.valid));
    }
    const Path tokenizer = tokenizer_path(config.data.train);
    if (job.files.exists(tokenizer)) {
      tokenizer_json_ = load_tokenizer(job.files, tokenizer)->to_json();
    }
  });
  check_same_files(job, config.data);
}

void TrainingData::check_same_files(Job& job, const DataConfig& config) const {
  const auto check_file = [&](const char* key, const std::string& prefix, const TokenFile* file) {
    if (file != nullptr) {
      check_same_contents(job.transport, fmt::format("{} = \"{}\"", key, prefix),
                          hash_hex(file->index_hash()));
    }
  };
  check_file("data.train", config.train, train_file_.get());
  check_file("data.valid", config.valid, valid_file_.get());
}

}  // namespace cartesian
