# Language level, warnings, optimisation and sanitizers, gathered in one interface target.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

# Release means -O3, which hot code needs. Cold code (tests, the command line, JSON and TOML) compiles several times faster
# with this and runs as fast.
set(CARTESIAN_COLD_CODE "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>")

add_library(cartesian_compiler INTERFACE)
set(cxx "$<COMPILE_LANGUAGE:CXX>")
target_compile_options(cartesian_compiler INTERFACE
  "$<${cxx}:-Wall;-Wextra;-Wshadow;-Wnon-virtual-dtor;-Woverloaded-virtual>"
  # Contracting a*b+c into one fma is the only liberty taken with floating point: no -ffast-math.
  "$<${cxx}:-ffp-contract=fast;-fno-math-errno;-fno-trapping-math>")
if(CARTESIAN_NATIVE)
  target_compile_options(cartesian_compiler INTERFACE "$<${cxx}:-march=native>")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_options(cartesian_compiler INTERFACE "$<${cxx}:-mprefer-vector-width=512>")
  endif()
endif()
# For what must come out the same on any machine. Linked after cartesian_compiler, whose option it overrides: a target's own
# options come before those of what it links.
add_library(cartesian_uncontracted INTERFACE)
target_compile_options(cartesian_uncontracted INTERFACE "$<${cxx}:-ffp-contract=off>")
if(CARTESIAN_SANITIZE)
  target_compile_options(cartesian_compiler INTERFACE
    "$<${cxx}:-fsanitize=${CARTESIAN_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  target_link_options(cartesian_compiler INTERFACE "-fsanitize=${CARTESIAN_SANITIZE}")
endif()
