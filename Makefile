EXTENSION = quota_manager
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" quota_manager.control)
MODULE_big = quota_manager

# A folder per concern; which may use which is told in docs/decisions.md.
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

# CRASH_POINTS=1 builds a library for tests that can be made to die at named places: src/common/crash_point.h.
ifdef CRASH_POINTS
PG_CPPFLAGS += -DCRASH_POINTS
else
OBJS := $(filter-out src/common/crash_point.o,$(OBJS))
endif

# The install script in parts by subject, in the order of dependency.  They have a folder of their own because
# pg_regress takes a test of the same name from sql/ first.
SQL_PARTS = schema rights condition schedule gateway user condition_functions strategy pause grant \
	counts firing due user_source scan upcoming lint identity delivery decision reversal worker brakes ceiling history bulk bulk_decision pg_cron import preview forecast monitoring retain proof explain why views access \
	api api_ceilings api_views api_relationships api_errors api_helpers api_explain api_explain_match api_functions api_brakes api_reversal api_history api_bulk api_preview api_lint api_lists default_rights
SQL_PART_FILES = $(patsubst %,$(srcdir)/sql/parts/%.sql,$(SQL_PARTS))
FRESH_SCRIPT = sql/$(EXTENSION)--$(EXTVERSION).sql

# From the version before, while this one is not released; scripts/build-upgrade tells of what it is made.
UPGRADE = 1.0.0--1.1.0
UPGRADE_SCRIPT = sql/$(EXTENSION)--$(UPGRADE).sql
UPGRADE_FILES = $(sort $(wildcard $(srcdir)/sql/upgrade/$(UPGRADE)/*.sql))

DATA_built = $(FRESH_SCRIPT) $(UPGRADE_SCRIPT)
DATA = $(patsubst %,sql/$(EXTENSION)--%.sql,1.0.0)
DOCS = README.md

PG_CPPFLAGS += -I$(srcdir)/src -DQUOTA_MANAGER_VERSION='"$(EXTVERSION)"' $(CURL_CFLAGS) $(JSONC_CFLAGS)
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = -lcurl -ljson-c -Wl,--version-script=$(srcdir)/src/exports.map

REGRESS = $(sort $(patsubst $(srcdir)/test/sql/%.sql,%,$(wildcard $(srcdir)/test/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(srcdir)/test --encoding=UTF8 --load-extension=$(EXTENSION)
ISOLATION = $(sort $(patsubst $(srcdir)/test/isolation/specs/%.spec,%,$(wildcard $(srcdir)/test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(srcdir)/test/isolation --encoding=UTF8 --load-extension=$(EXTENSION)

# For installcheck: with TEMP_INSTANCE=DIR the tests bring a throw-away cluster in DIR; without, they use a running one.  TEMP_CONFIG, of the
# environment, is a file of more settings, which the clusters of the TAP tests read too.
ifdef TEMP_INSTANCE
TEMP_CONFIGS = $(patsubst %,--temp-config=%,$(srcdir)/test/test.conf $(TEMP_CONFIG))
REGRESS_OPTS += --temp-instance=$(TEMP_INSTANCE)/regress $(TEMP_CONFIGS)
ISOLATION_OPTS += --temp-instance=$(TEMP_INSTANCE)/isolation $(TEMP_CONFIGS)
endif

EXTRA_CLEAN = $(DATA_built) test/aigateway-mock/aigateway-mock

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# A README.md among those of other extensions would be theirs as well.
docmoduledir = $(EXTENSION)

$(FRESH_SCRIPT): $(SQL_PART_FILES) $(srcdir)/quota_manager.control
	@mkdir -p sql
	cat $(SQL_PART_FILES) > $@

$(UPGRADE_SCRIPT): $(UPGRADE_FILES) $(SQL_PART_FILES) $(srcdir)/scripts/build-upgrade
	@mkdir -p sql
	perl $(srcdir)/scripts/build-upgrade $(srcdir)/sql/parts $(UPGRADE_FILES) > $@.new
	mv $@.new $@

$(OBJS): $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h) $(srcdir)/quota_manager.control

mock: test/aigateway-mock/aigateway-mock

test/aigateway-mock/aigateway-mock: $(wildcard $(srcdir)/test/aigateway-mock/*.c $(srcdir)/test/aigateway-mock/*.h)
	@mkdir -p test/aigateway-mock
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -o $@ $(filter %.c,$^) -lmicrohttpd -ljson-c -lpthread -lm

# TAP tests, against clusters of their own; test/README.md.  PROVE_TESTS picks some.  PGXS's own TAP_TESTS wants them in
# t/, and keeps results elsewhere on each major.  Those that take longest begin first: none of them is to run alone at the end.
LONGEST_TESTS = $(patsubst %,$(srcdir)/test/t/%.pl,176_retain 168_preview_property 056_three_ways 097_many_strategies 170_reversal_faults \
	070_crash_points 048_worker_steps_aside 165_ceilings 014_year 083_soak 103_plans 021_condition_oracle 073_clock_workers 100_hostile_roles 174_lint_proved)
ALL_TESTS = $(sort $(wildcard $(srcdir)/test/t/*.pl))
PROVE_TESTS ?= $(filter $(ALL_TESTS),$(LONGEST_TESTS)) $(filter-out $(LONGEST_TESTS),$(ALL_TESTS))
PROVE_OUTPUT ?= $(CURDIR)/tmp_check

# Those that run the build with crash points.
CRASH_TESTS = $(shell grep -ls 'use QuotaTest::CrashPoints' $(PROVE_TESTS))

prove: prove_installcheck
prove_installcheck: mock $(if $(CRASH_TESTS),crash-build)
	mkdir -p $(PROVE_OUTPUT)
	PATH="$(bindir):$$PATH" LANG=C.UTF-8 LC_ALL=C.UTF-8 PG_REGRESS='$(top_builddir)/src/test/regress/pg_regress' \
	TESTDIR='$(PROVE_OUTPUT)' TESTDATADIR='$(PROVE_OUTPUT)' TESTLOGDIR='$(PROVE_OUTPUT)/log' \
	QUOTA_MANAGER_MOCK='$(CURDIR)/test/aigateway-mock/aigateway-mock' \
	QUOTA_MANAGER_CRASH_BUILD='$(abspath $(CRASH_BUILD))/install' \
	prove $(PROVE_FLAGS) --exec 'perl -I $(top_srcdir)/src/test/perl -I $(srcdir)/test/perl -MQuotaTest::Limit -MQuotaTest::Template -MQuotaTest::Wire' $(PROVE_TESTS)

# The build with crash points is made from a copy and installed beside the tests' results, where the ordinary one cannot
# meet it.
CRASH_BUILD = $(PROVE_OUTPUT)/crash
crash-build:
	rm -rf $(CRASH_BUILD)
	mkdir -p $(CRASH_BUILD)/copy/sql
	cp -R $(foreach file,Makefile $(EXTENSION).control README.md src scripts,$(srcdir)/$(file)) $(CRASH_BUILD)/copy
	cp -R $(foreach file,parts upgrade $(notdir $(DATA)),$(srcdir)/sql/$(file)) $(CRASH_BUILD)/copy/sql
	find $(CRASH_BUILD)/copy -name '*.o' -delete
	$(MAKE) -j2 -C $(CRASH_BUILD)/copy CRASH_POINTS=1 all
	$(MAKE) -C $(CRASH_BUILD)/copy CRASH_POINTS=1 install DESTDIR=$(abspath $(CRASH_BUILD))/install

# docs/reference.md, from a fresh install in a throw-away cluster.
reference:
	$(srcdir)/scripts/build-reference

# What is handed to PGXN: what is committed, and the install script, which META.json names.
DIST = .
CHECKOUT = $(srcdir)
dist: $(FRESH_SCRIPT)
	git -c safe.directory='*' -C $(CHECKOUT) archive --format=zip --prefix=$(EXTENSION)-$(EXTVERSION)/sql/ --add-file=$(abspath $(FRESH_SCRIPT)) \
		--prefix=$(EXTENSION)-$(EXTVERSION)/ -o $(abspath $(DIST))/$(EXTENSION)-$(EXTVERSION).zip HEAD

.PHONY: mock prove prove_installcheck crash-build reference dist
