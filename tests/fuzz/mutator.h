#pragma once
// Mutator: damages valid inputs at random, the same way in every run. fuzz() feeds the results to a
// parser, which must take each or refuse it with one of the errors that are meant for bad files.

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"

namespace cartesian {

class Mutator {
 public:
  /// `seeds`: valid inputs. `words`: text to splice in, such as keys and extreme numbers of the
  /// format.
  Mutator(std::vector<std::string> seeds, std::vector<std::string> words);

  /// The input number `run`: a seed after one to four mutations.
  std::string input(std::int64_t run);

 private:
  void mutate(std::string& bytes);
  std::size_t below(std::size_t limit);
  std::string number();

  std::vector<std::string> seeds_;
  std::vector<std::string> words_;
  std::mt19937_64 random_;
};

/// 2,000, or the environment's CARTESIAN_FUZZ_RUNS.
std::int64_t fuzz_runs();

/// Bytes as a C++ string literal, to reproduce a failure.
std::string as_literal(const std::string& bytes);

/// Gives `parse` inputs, which it must take or refuse by one of our errors.
template <class Parse>
void fuzz(Mutator mutator, Parse parse, std::int64_t runs = fuzz_runs()) {
  std::int64_t taken = 0;
  std::int64_t refused = 0;
  for (std::int64_t run = 0; run < runs; ++run) {
    const std::string input = mutator.input(run);
    try {
      parse(input);
      ++taken;
    } catch (const FormatError&) {
      ++refused;
    } catch (const ConfigError&) {
      ++refused;
    } catch (const FileError&) {
      ++refused;
    } catch (const std::exception& error) {
      FAIL() << "run " << run << ": " << error.what() << "\n" << as_literal(input);
    }
    if (testing::Test::HasFailure()) {
      FAIL() << "run " << run << "\n" << as_literal(input);
    }
  }
  // A fuzzer all of whose inputs meet the same fate tests nothing.
  EXPECT_GT(taken, 0);
  EXPECT_GT(refused, runs / 10);
}

}  // namespace cartesian
