# Installs the executable, the public headers and a CMake package: find_package(cartesian) then cartesian::runtime.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
get_property(libraries GLOBAL PROPERTY CARTESIAN_LIBRARIES)
install(TARGETS ${libraries} EXPORT cartesianTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS cartesian RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(layer base kernels comm planner scheduler runtime)
  install(DIRECTORY ${layer} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cartesian FILES_MATCHING PATTERN "*.h")
endforeach()
install(EXPORT cartesianTargets NAMESPACE cartesian:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cartesian)
configure_package_config_file(cmake/cartesianConfig.cmake.in cartesianConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cartesian)
write_basic_package_version_file(cartesianConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/cartesianConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/cartesianConfigVersion.cmake"
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cartesian)
