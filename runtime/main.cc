#include <cstdio>

#include "runtime/version.h"

int main() { std::printf("cartesian %s\n", cartesian::version().data()); }
