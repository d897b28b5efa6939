# cmake --install: programs, libraries, plugins, and the package "Resect" that plugins of others are built with (packaging/example-plugin).
# Two components: engine (everything without Qt) and window.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(plugin_folder ${CMAKE_INSTALL_LIBDIR}/resect/plugins)
set(engine_libraries base protocol checkpoint anatomy surgery export data models measure train method workspace worker)
set(engine_targets resect-cli)
foreach(name ${engine_libraries})
  list(APPEND engine_targets resect_${name})
endforeach()
get_property(plugin_targets GLOBAL PROPERTY RESECT_PLUGIN_TARGETS)

# Found wherever the folder is moved to; libraries outside the system's folders (a LibTorch of one's own) by where they were linked from.
set_target_properties(${engine_targets} resect_sentencepiece_module ${plugin_targets} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
foreach(target ${engine_targets})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  else()
    set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN")
  endif()
endforeach()
set_target_properties(resect_sentencepiece_module PROPERTIES INSTALL_RPATH "$ORIGIN/..")
set_target_properties(${plugin_targets} PROPERTIES INSTALL_RPATH "$ORIGIN/../..")

install(TARGETS ${engine_targets} COMPONENT engine RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS resect_sentencepiece_module COMPONENT engine LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/resect)
install(TARGETS ${plugin_targets} COMPONENT engine LIBRARY DESTINATION ${plugin_folder})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/core DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/resect COMPONENT engine FILES_MATCHING PATTERN "*.h" PATTERN sentencepiece EXCLUDE)
if(TARGET resect)
  set_target_properties(resect PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  install(TARGETS resect COMPONENT window RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

file(STRINGS ${PROJECT_SOURCE_DIR}/core/method/method.h abi_line REGEX "kPluginAbi = [0-9]+")
string(REGEX MATCH "[0-9]+" RESECT_PLUGIN_ABI "${abi_line}")
set(RESECT_INSTALL_INCLUDE ${CMAKE_INSTALL_INCLUDEDIR}/resect)
set(RESECT_INSTALL_LIBRARIES ${CMAKE_INSTALL_LIBDIR})
set(RESECT_INSTALL_PLUGINS ${plugin_folder})
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/Resect)
configure_package_config_file(${PROJECT_SOURCE_DIR}/packaging/cmake/ResectConfig.cmake.in ${PROJECT_BINARY_DIR}/ResectConfig.cmake
  INSTALL_DESTINATION ${package_folder} PATH_VARS RESECT_INSTALL_INCLUDE RESECT_INSTALL_LIBRARIES RESECT_INSTALL_PLUGINS)
# The interface is C++ between libraries, so a plugin fits one version only.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ResectConfigVersion.cmake COMPATIBILITY ExactVersion)
install(FILES ${PROJECT_BINARY_DIR}/ResectConfig.cmake ${PROJECT_BINARY_DIR}/ResectConfigVersion.cmake DESTINATION ${package_folder} COMPONENT engine)
