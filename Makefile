# keybridge: one non-recursive Makefile.  `make help` lists the targets.
#
# MODE picks the build (debug, release, asan, tsan, fuzz); each has its own folder, so they coexist.

MODE ?= release
B    ?= build/$(MODE)
ifeq ($(origin CC),default)
CC   := gcc
endif
RUN  ?=

PKGS := libpq libmariadb libcurl openssl libzstd sqlite3 expat jansson libxxhash libdeflate smartcols uuid libmicrohttpd

WARN := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wcast-qual -Wformat=2 \
        -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wundef \
        -Wvla -Wswitch-enum -Wimplicit-fallthrough -Wdouble-promotion
has   = $(shell $(CC) -Werror $(1) -fsyntax-only -xc /dev/null 2>/dev/null && echo $(1))
WARN += $(foreach w,-Wlogical-op -Wduplicated-cond -Wduplicated-branches -Wno-format-truncation,$(call has,$(w)))

OPT_debug   := -O0 -g3
OPT_release := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
OPT_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
OPT_fuzz    := $(OPT_asan) -fsanitize=fuzzer-no-link
ifeq ($(MODE),fuzz)
CC := clang
endif

# Named crash points and other test hooks exist in every build but the one that is installed.
ifneq ($(MODE),release)
TEST_HOOKS := -DKB_TEST_HOOKS
endif

CPPFLAGS += -I. -D_GNU_SOURCE $(TEST_HOOKS) $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
CFLAGS   := -std=c17 $(OPT_$(MODE)) $(WARN) $(if $(WERROR),-Werror) -pthread $(EXTRA_CFLAGS)
LDFLAGS  += $(filter-out -fsanitize=fuzzer-no-link,$(filter -fsanitize=%,$(OPT_$(MODE)))) -pthread
LDLIBS   += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm

SRC  := $(wildcard engine/*/*.c decoders/*.c decoders/*/*.c appliers/*.c appliers/*/*.c aws/*.c)
MAIN := engine/cmd/main.c
LIB  := $(B)/libkeybridge.a
obj   = $(patsubst %.c,$(B)/obj/%.o,$(1))

UNIT  := $(patsubst tests/unit/%.c,$(B)/bin/%,$(wildcard tests/unit/test_*.c))
FUZZ  := $(patsubst tests/fuzz/%.c,$(B)/bin/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH := $(patsubst bench/%.c,$(B)/bin/%,$(wildcard bench/*.c))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all bin deps check check-unit check-it check-asan check-tsan check-valgrind check-deep fuzz fuzz-short \
        bench demo lint format tidy docs install clean help

all: bin ## Build keybridge (MODE=release|debug|asan|tsan)
bin: $(B)/bin/keybridge

$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(LIB): $(call obj,$(filter-out $(MAIN),$(SRC)))
	@rm -f $@
	@ar rcs $@ $^

$(B)/bin/keybridge: $(call obj,$(MAIN)) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/bin/test_%: $(B)/obj/tests/unit/test_%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

# In MODE=fuzz a libFuzzer program; in every other mode a plain one that replays files.
$(B)/bin/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(if $(filter fuzz,$(MODE)),,$(B)/obj/tests/fuzz/replay.o) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) -o $@ $^ $(LDLIBS)

$(B)/bin/%: $(B)/obj/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

.SECONDARY:
-include $(patsubst %.c,$(B)/obj/%.d,$(SRC) $(wildcard tests/unit/*.c tests/fuzz/*.c bench/*.c))
