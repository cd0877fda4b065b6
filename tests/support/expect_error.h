#pragma once
// expect_error<FormatError>(action, {"file.bin", "dtype"}): the action throws this error, and its
// sentence names all of these.

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

namespace cartesian {

template <class Expected, class Action>
void expect_error(Action action, std::initializer_list<std::string> mentions) {
  try {
    action();
    ADD_FAILURE() << "no error was thrown";
  } catch (const Expected& error) {
    const std::string sentence = error.what();
    for (const std::string& mention : mentions) {
      EXPECT_NE(sentence.find(mention), std::string::npos)
          << "\"" << sentence << "\" does not mention \"" << mention << "\"";
    }
  } catch (const std::exception& error) {
    ADD_FAILURE() << "an error of another type was thrown: " << error.what();
  }
}

}  // namespace cartesian
