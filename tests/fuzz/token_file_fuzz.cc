#include <gtest/gtest.h>

#include "runtime/data/token_file.h"
#include "runtime/data/token_file_writer.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

/// An index and its data as the writer makes them.
std::pair<std::string, std::string> make_pair_of_files(std::int64_t vocabulary) {
  const TemporaryDirectory directory;
  const auto files = make_posix_file_system();
  StagedFiles staged(*files);
  TokenFileWriter writer(staged, directory / "data", vocabulary);
  for (const std::vector<std::int32_t>& document :
       {std::vector{1, 2, 3}, std::vector<std::int32_t>{}, std::vector{4, 5, 256}}) {
    writer.append(document);
    writer.end_document();
  }
  writer.finish();
  staged.publish();
  return {files->read(token_index_path(directory / "data")),
          files->read(token_data_path(directory / "data"))};
}

void walk(const TokenFile& file) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, tokens);
  file.check_vocabulary(257);
}

TEST(Fuzz, TokenIndex) {
  for (const std::int64_t vocabulary : {257, 100'000}) {
    const auto [index, data] = make_pair_of_files(vocabulary);
    fuzz(Mutator({index}, {"MMIDIDX", std::string(8, '\0'), std::string(8, '\xFF')}),
         [&, &bytes = data](const std::string& input) {
           MemoryFiles files;
           files.set("data.idx", input);
           files.set("data.bin", bytes);
           walk(TokenFile(files, "data"));
         });
  }
}

TEST(Fuzz, TokenData) {
  const auto [index, data] = make_pair_of_files(257);
  fuzz(Mutator({data}, {"x", "xy"}), [&, &header = index](const std::string& input) {
    MemoryFiles files;
    files.set("data.idx", header);
    files.set("data.bin", input);
    walk(TokenFile(files, "data"));
  });
}

}  // namespace
}  // namespace cartesian
