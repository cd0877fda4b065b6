# cmake -DSOURCE=... -DOUTPUT=... -P CartesianCommit.cmake: writes the commit that is checked out as a macro, and touches the
# file only when it changes, so that a build of the same commit compiles nothing.
find_program(GIT git)
set(commit "")
if(GIT)
  execute_process(COMMAND "${GIT}" -C "${SOURCE}" describe --always --dirty --abbrev=12 --exclude *
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT commit MATCHES "^[0-9a-f]+(-dirty)?$")
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "#define CARTESIAN_COMMIT \"${commit}\"\n" @ONLY)
