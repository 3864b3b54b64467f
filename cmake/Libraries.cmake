# SPDX-License-Identifier: MIT
# The outside libraries, by pkg-config where they know it. Everything that is missing is named at once, with the Debian
# package.
find_package(PkgConfig REQUIRED)

set(PROMPTD_MISSING "")
macro(promptd_library target module debian_package)
  pkg_check_modules(${target} QUIET IMPORTED_TARGET ${module})
  if(NOT ${target}_FOUND)
    string(APPEND PROMPTD_MISSING "\n  ${module} (Debian package ${debian_package})")
  endif()
endmacro()

promptd_library(HIREDIS "hiredis>=0.14" libhiredis-dev)
# TLS to Redis is a library of its own, from 1.0 on; Debian 12 has none, and goes without.
pkg_check_modules(HIREDIS_SSL QUIET IMPORTED_TARGET "hiredis_ssl>=1.0")
promptd_library(LIBPQ "libpq>=14" libpq-dev)
promptd_library(CJSON "libcjson>=1.7.15" libcjson-dev)
promptd_library(LIBUV "libuv>=1.40" libuv1-dev)
promptd_library(CRYPTO "libcrypto>=3.0" libssl-dev)
if(HIREDIS_SSL_FOUND)
  promptd_library(OPENSSL "openssl>=3.0" libssl-dev)
endif()
promptd_library(SQLITE "sqlite3>=3.35" libsqlite3-dev)
promptd_library(INIH "inih" libinih-dev)
promptd_library(CURL "libcurl>=7.85" libcurl4-openssl-dev)
promptd_library(MICROHTTPD "libmicrohttpd>=0.9.75" libmicrohttpd-dev)
promptd_library(SYSTEMD "libsystemd>=246" libsystemd-dev)
if(PROMPTD_TESTS)
  promptd_library(CMOCKA "cmocka>=1.1" libcmocka-dev)
endif()

find_path(UTHASH_FOLDER uthash.h)
if(UTHASH_FOLDER)
  add_library(uthash INTERFACE)
  target_include_directories(uthash SYSTEM INTERFACE ${UTHASH_FOLDER})
else()
  string(APPEND PROMPTD_MISSING "\n  uthash.h (Debian package uthash-dev)")
endif()

if(PROMPTD_MISSING)
  message(FATAL_ERROR "promptd needs libraries that were not found:${PROMPTD_MISSING}")
endif()
