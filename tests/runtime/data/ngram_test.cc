#include "runtime/data/ngram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/random.h"
#include "runtime/data/token_file_writer.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

class Ngram : public testing::Test {
 protected:
  TokenFile file_of(const std::vector<std::int32_t>& tokens) {
    StagedFiles staged(*files_);
    TokenFileWriter writer(staged, prefix_, 100'000);
    writer.append(tokens);
    writer.end_document();
    writer.finish();
    staged.publish();
    return {*files_, prefix_};
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path prefix_ = directory_ / "data";
};

// Tokens 0 1 0 1 0 2 of a vocabulary of 4, by hand: c(0) = 3, c(1) = 2, c(2) = 1, N = 6, D = 3;
// c(0, 1) = 2, c(0, 2) = 1, c(1, 0) = 2; D(0) = 2, D(1) = 1, D(2) = D(3) = 0.
TEST_F(Ngram, IsTheHandComputedModel) {
  const TokenFile data = file_of({0, 1, 0, 1, 0, 2});
  const NgramModel model(data, 4);
  const double p0 = (3 + 0.75) / 9;
  const double p1 = (2 + 0.75) / 9;
  const double p2 = (1 + 0.75) / 9;
  const double p3 = 0.75 / 9;
  EXPECT_DOUBLE_EQ(model.unigram(0), p0);
  EXPECT_DOUBLE_EQ(model.unigram(1), p1);
  EXPECT_DOUBLE_EQ(model.unigram(2), p2);
  EXPECT_DOUBLE_EQ(model.unigram(3), p3);
  EXPECT_DOUBLE_EQ(model.bigram(0, 1), (2 + 2 * p1) / 5);
  EXPECT_DOUBLE_EQ(model.bigram(0, 2), (1 + 2 * p2) / 5);
  EXPECT_DOUBLE_EQ(model.bigram(0, 0), (0 + 2 * p0) / 5);
  EXPECT_DOUBLE_EQ(model.bigram(1, 0), (2 + 1 * p0) / 3);
  EXPECT_DOUBLE_EQ(model.bigram(2, 3), p3);  // 2 was never followed
  EXPECT_DOUBLE_EQ(model.bigram(3, 0), p0);

  NgramLoss loss(model);
  loss.add(std::vector{0, 1}, std::vector{1, 0});
  loss.add(std::vector{3}, std::vector{3});
  EXPECT_EQ(loss.targets(), 3);
  EXPECT_NEAR(loss.unigram(), -(std::log(p1) + std::log(p0) + std::log(p3)) / 3, 1e-15);
  EXPECT_NEAR(loss.bigram(),
              -(std::log((2 + 2 * p1) / 5) + std::log((2 + p0) / 3) + std::log(p3)) / 3, 1e-15);
}

TEST_F(Ngram, ProbabilitiesSumToOne) {
  constexpr std::int32_t kVocabulary = 300;
  std::vector<std::int32_t> tokens;
  for (std::uint64_t i = 0; i < 200'000; ++i) {  // several blocks
    const double u = random_uniform(3, i);
    tokens.push_back(static_cast<std::int32_t>(u * u * 290));
  }
  const TokenFile data = file_of(tokens);
  const NgramModel model(data, kVocabulary);
  std::map<std::pair<std::int32_t, std::int32_t>, int> pairs;
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    ++pairs[{tokens[i - 1], tokens[i]}];
  }
  const auto sum = [&](auto probability) {
    double total = 0.0;
    for (std::int32_t token = 0; token < kVocabulary; ++token) {
      EXPECT_GT(probability(token), 0.0);
      total += probability(token);
    }
    return total;
  };
  EXPECT_NEAR(sum([&](std::int32_t token) { return model.unigram(token); }), 1.0, 1e-12);
  for (std::int32_t previous = 0; previous < kVocabulary; previous += 7) {
    EXPECT_NEAR(sum([&](std::int32_t token) { return model.bigram(previous, token); }), 1.0, 1e-12);
  }
  // Every pair was counted once, those between blocks too: p2's formula solved for c(u, w).
  std::map<std::int32_t, std::pair<int, int>> contexts;
  for (const auto& [pair, count] : pairs) {
    contexts[pair.first].first += count;
    contexts[pair.first].second += 1;
  }
  for (const auto& [pair, count] : pairs) {
    const auto [followed, distinct] = contexts[pair.first];
    const double expected = (count + distinct * model.unigram(pair.second)) / (followed + distinct);
    ASSERT_NEAR(model.bigram(pair.first, pair.second), expected, 1e-15);
  }
}

TEST_F(Ngram, LearnsLargeVocabularies) {
  constexpr std::int32_t kVocabulary = 100'000;
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < 300'000; ++i) {  // a cycle: each token has one successor
    tokens.push_back(static_cast<std::int32_t>(std::int64_t{i} * 7919 % kVocabulary));
  }
  const TokenFile data = file_of(tokens);
  const NgramModel model(data, kVocabulary);
  NgramLoss loss(model);
  loss.add(std::span(tokens).first(1000), std::span(tokens).subspan(1, 1000));
  EXPECT_NEAR(loss.unigram(), std::log(kVocabulary), 1e-3);
  EXPECT_NEAR(loss.bigram(), std::log(4.0 / 3.0), 1e-3);
}

TEST_F(Ngram, SamplesEvenlyWhenThereIsTooMuch) {
  std::vector<std::int32_t> tokens;
  for (std::uint64_t i = 0; i < 2'000'000; ++i) {  // the text changes half-way
    tokens.push_back(static_cast<std::int32_t>(random_bits(5, i) % 8) + (i < 1'000'000 ? 0 : 8));
  }
  const TokenFile data = file_of(tokens);
  const NgramModel model(data, 16, 400'000);
  for (std::int32_t token = 0; token < 16; ++token) {
    EXPECT_NEAR(model.unigram(token), 1.0 / 16, 0.01) << token;
  }
}

TEST_F(Ngram, NamesAFileThatIsTooSmall) {
  const TokenFile data = file_of({3});
  expect_error<ConfigError>([&] { NgramModel(data, 4); }, {prefix_.string() + ".bin", "1 tokens"});
}

// The most distinct pairs, and so the memory, are bounded for any vocabulary.
TEST(NgramLimits, LargeVocabulariesCountFewerTokens) {
  EXPECT_EQ(NgramModel::max_tokens(257), NgramModel::kMaxTokens);
  EXPECT_EQ(NgramModel::max_tokens(2048), NgramModel::kMaxTokens);
  EXPECT_EQ(NgramModel::max_tokens(32000), NgramModel::kMaxPairs);
  EXPECT_EQ(NgramModel::max_tokens((std::int64_t{1} << 31) - 1), NgramModel::kMaxPairs);
}

}  // namespace
}  // namespace cartesian
