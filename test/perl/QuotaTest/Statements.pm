
=pod

=head1 NAME

QuotaTest::Statements - the SQL of the extension, and what must not stand in it where users are spread over servers

=head1 SYNOPSIS

  my $rules = QuotaTest::Statements->new($node);
  foreach my $source ($rules->sources) { push @faults, $rules->faults($_) foreach $rules->statements($source); }

What is distributed by user has no plain table's abilities: a statement that changes it is run on several servers, each of
which would call a function that is volatile; a function of one parameter is run before its parameter is known; and so on.

=cut

package QuotaTest::Statements;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils qw(slurp_file);

# The tables that may be distributed, by these columns, and the views over them.
our %distributed = (user_info => 'id', user_balance => 'user_id', quota_execute => 'user_id', grant_decision => 'user_id');
my $tables = join '|', sort keys %distributed;
my $views = "$tables|known_balance|subject|delivery_status";

# Times that differ from server to server, or from one part of a statement to another, though they are not volatile.
my @times = qw(now statement_timestamp transaction_timestamp schedule_now balance_clock balance_horizon);

sub new
{
	my ($class, $node, $database) = @_;
	my $self = bless { node => $node, database => $database // 'postgres' }, $class;
	my %volatile = map { $_ => 1 } @times, $self->_rows(q{SELECT DISTINCT p.proname FROM pg_proc p WHERE p.provolatile = 'v' AND p.prokind = 'f'});

	$self->{volatile} = \%volatile;
	# An identity is no matter: whoever runs the statement counts.
	foreach my $row ($self->_rows(qq{SELECT c.relname || ' ' || a.attname || ' ' || pg_get_expr(d.adbin, d.adrelid)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
		WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relname ~ '^($tables)\$' AND a.attidentity = ''}))
	{
		my ($table, $column, $default) = split / /, $row, 3;

		push @{ $self->{defaults}{$table} }, $column if grep { $volatile{$_} } $default =~ /(\w+)\(/g;
	}
	return $self;
}

sub _rows
{
	my ($self, $query) = @_;

	return split /\n/, $self->{node}->safe_psql($self->{database}, $query);
}

# Where SQL of the extension stands: hashes of a name, a language (c, plpgsql, sql or view) and a text.
sub sources
{
	my ($self) = @_;
	my @sources;

	foreach my $row (
		$self->_rows(q{SET search_path = ''; SELECT encode(convert_to(f.name, 'UTF8'), 'hex') || ' ' || f.language || ' ' || encode(convert_to(f.body, 'UTF8'), 'hex')
			FROM (SELECT p.oid::regprocedure::text AS name, l.lanname::text AS language, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body
					FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
					WHERE p.pronamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname ~ '^quota_') AND l.lanname IN ('sql', 'plpgsql')
				UNION ALL SELECT c.oid::regclass::text, 'view', pg_get_viewdef(c.oid) FROM pg_class c
					WHERE c.relkind = 'v' AND c.relnamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname ~ '^quota_')) f}))
	{
		my ($name, $language, $text) = split / /, $row;

		push @sources, { name => pack('H*', $name), language => $language, text => pack('H*', $text) };
	}

	# A string of the library is a statement, or a part of one, with all macros in their places.
	chomp(my $folder = `pg_config --pkglibdir`);
	$folder = ($ENV{QUOTA_MANAGER_INSTALL} // '') . $folder;
	push @sources, map { { name => substr($_, 0, 60), language => 'c', text => $_ } }
	  grep { /^[\t -~]+$/ && /\bquota_(?:manager|internal)\./ && /\b(?:SELECT|INSERT|UPDATE|DELETE)\b/ } split /\0/, slurp_file("$folder/quota_manager.so");
	return @sources;
}

# The statements of a source.
sub statements
{
	my ($self, $source) = @_;
	my $text = $source->{text} =~ s/--[^\n]*//gr;
	my @parts = $source->{language} eq 'plpgsql' ? split(/;[ \t]*(?:\n|$)/, $text) : ($text);

	# What is put together is what stands in quotes; its parameters are computed before it is run.
	@parts = map { /\bEXECUTE\b/ ? _quoted($_) : $_ } @parts;
	return map { s/\s+/ /gr =~ s/^ | $//gr } @parts;
}

# All that stands in quotes, a quote inside being one.
sub _quoted
{
	my ($text) = @_;

	return join ' ', map { s/''/'/gr } $text =~ /'((?:[^']|'')*)'/g;
}

# What is wrong with a statement; language says what it stands in.
sub faults
{
	my ($self, $statement, $language) = @_;
	my @faults;

	push @faults, 'selects no column' if $statement =~ /\b(?:SELECT|PERFORM) FROM\b/i;
	if (my ($change) = $statement =~ /((?:\bWITH\b.*?)?\b(?:INSERT INTO|UPDATE|DELETE FROM) (?:ONLY )?quota_manager\.(?:$tables)\b.*)/is)
	{
		push @faults, map { "calls $_() in a change" } grep { $self->{volatile}{$_} } $change =~ /\b(\w+)\(/g;
		push @faults, 'has the time of the statement in a change' if $change =~ /\b(?:CURRENT_(?:TIME|TIMESTAMP|DATE)|LOCALTIME|LOCALTIMESTAMP)\b/i;
	}
	while ($statement =~ /\bINSERT INTO quota_manager\.($tables)(?: AS \w+)? \(([^)]*)\)/gi)
	{
		my ($table, %given) = ($1, map { $_ => 1 } split /, ?/, $2);

		# Which columns a template has is seen when it is run.
		next if $2 =~ /%/;

		push @faults, map { "leaves $_ to its default, a volatile one" } grep { !$given{$_} } @{ $self->{defaults}{$table} };
	}
	return (@faults, $self->_read_faults($statement, $language));
}

# What is wrong with how a statement reads.
sub _read_faults
{
	my ($self, $statement, $language) = @_;
	my @faults;

	return () if $statement !~ /\bquota_manager\.(?:$views)\b/;
	# What it hands over as a string is planned with its parameters.
	push @faults, 'is an SQL function that knows its parameter too late'
	  if $language eq 'sql' && $statement =~ s/'(?:[^']|'')*'//gr =~ /\bquota_manager\.(?:$views)\b/;
	push @faults, 'joins each row of a table to a part of another' if $statement =~ /\bLATERAL \(SELECT [^()]*\bquota_manager\.(?:$views)\b/i;
	push @faults, 'asks for each row of a function whether there is one elsewhere'
	  if $statement =~ /\bFROM (?:pg_catalog\.)?unnest\([^()]*\)(?: \w+\([^()]*\))?[^()]* WHERE (?:NOT )?EXISTS \(SELECT [^()]*\bquota_manager\.(?:$views)\b/i;
	push @faults, 'locks rows of more than one user'
	  if $statement =~ /\bFROM quota_manager\.(?:$tables)\b.*\bFOR (?:NO KEY UPDATE|UPDATE|SHARE|KEY SHARE)\b/i && $statement !~ /\buser_id = \$\d/;
	return @faults;
}

1;
