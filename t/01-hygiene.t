# What the project promises about its own text: sizes and style of the C
# files, the map of ngx_rt_module/README.md, contracts of shared structs,
# comments of functions, the reference of README.md, and what may not stand in
# any file.  Each check that could be blind is first shown something bad.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

my $dir = root() . '/ngx_rt_module';
my %text = map { s{.*/}{}r => slurp($_) } glob "$dir/*.[ch]";
my @headers = sort grep { /\.h$/ } keys %text;

# the project's files, as git has them; without git all but what is ignored
my @files = split /\0/, `git -C '${\root()}' ls-files -z 2> /dev/null`;
@files = map { s{^\./}{}r } split /\0/, `cd '${\root()}' && find . -type f \\
    -not -path './.git*' -not -path './build/*' -not -path '*/node_modules/*' \\
    -print0` if !@files;
@files = grep { -f root() . "/$_" } @files;
cmp_ok(@files, '>', 100, 'there are files');


# tools/check.sh, which finds what it looks for

sub check (@files) {
    my $out = dir() . '/check.out';
    my $status = system(root() . "/tools/check.sh @files > $out 2>&1");
    return ($status, slurp($out));
}

SKIP: {
    skip 'no cppcheck', 2 if !grep { -x "$_/cppcheck" } split /:/, $ENV{PATH};
    my ($status, $said) = check();
    is($said, '', 'check.sh has nothing to say');
    is($status, 0, 'and is content');
    my $bad = dir() . '/bad.c';
    for ([cppcheck => "int f(void) { int a[2]; a[2] = 1; return a[0]; }\n",
            qr/bounds/],
         ['81 columns' => '/* ' . 'x' x 75 . " */\n", qr/:1: over 80 columns/],
         ['a tab' => "int\ta;\n", qr/:1: a tab/],
         ['a long function' => "int f(void)\n{\n" . "\n" x 120 . "}\n",
            qr/:2: a function of 121 lines/],
         ['a long file' => "\n" x 901, qr/: over 900 lines/]) {
        my ($name, $code, $expected) = @$_;
        RT::spew($bad, $code);
        ($status, $said) = check($bad);
        isnt($status, 0, "check.sh: $name");
        like($said, $expected, 'is told');
    }
    RT::spew($bad, '/* ' . 'x' x 74 . " */\nvoid f(void)\n{\n" . "\n" x 119
        . "}\n" . "\n" x 776);
    ($status, $said) = check($bad);
    is($status, 0, 'check.sh: up to the limits') or diag($said);
}


# The map: a line is "L<n> <room>" or goes on with the room, and holds names
# of files; one that begins with "_" has ngx_rt or ngx_http_rt, as the one
# before, in front of it.

my ($map) = slurp("$dir/README.md") =~ /^## Layers\n.*?^```\n(.*?)^```/ms;
my (%room, $room, $prefix);
for my $line (split /\n/, $map) {
    $room = "$1 $2" if $line =~ /^L(\d) (\w+)/;
    # not those in the explanation behind the names
    for my $name ($line =~ /(?:^|[ ,])(ngx_http_rt\.h
                             |(?:ngx_(?:http_)?rt)?_\w+\.[ch])/gx) {
        $prefix = $1 if $name =~ /^(ngx_(?:http_)?rt)_/;
        $name = $prefix . $name if $name =~ /^_/;
        push @{$room{$name}}, $room;
    }
}
is_deeply([sort keys %room], [sort keys %text],
    'the map has all files, and no other');
is_deeply([grep { @{$room{$_}} > 1 && $_ ne 'ngx_http_rt.h' } sort keys %room],
    [], 'each in one room');

# of nginx and hiredis: the lowest layer that may know it
my %foreign = ('ngx_config.h' => 0, 'ngx_core.h' => 0, 'ngx_event.h' => 2,
    'ngx_event_connect.h' => 3, 'ngx_http.h' => 3, 'hiredis/hiredis.h' => 3,
    'signal.h' => 1, 'sys/mman.h' => 2, 'liburing.h' => 2);
# transports that reach over to the sources
my %across = ('ngx_http_rt_publish.c ngx_rt_source.h' => 1);

sub may ($file, $header) {
    my ($layer, $name) = split / /, $room{$file}[0];
    if (exists $foreign{$header}) {
        return 0 if $name eq 'sources' && $header eq 'ngx_http.h';
        return 0 if $name ne 'sources' && $header =~ /hiredis|_connect/;
        return $layer >= $foreign{$header};
    }
    return 0 if !$room{$header};
    return 1 if $across{"$file $header"};
    for (@{$room{$header}}) {
        return 1 if $_ eq $room{$file}[0] || (split / /)[0] < $layer;
    }
    return 0;
}

my $includes = 0;
my @up;
for my $file (sort keys %text) {
    for my $header ($text{$file} =~ /^#\s*include\s+[<"]([^>"]+)[>"]/gm) {
        $includes++;
        push @up, "$file: $header" if !may($file, $header);
    }
}
cmp_ok($includes, '>', 50, 'there are includes');
is_deeply(\@up, [], 'includes go down only');
is_deeply([grep { may(@$_) } (
        ['ngx_rt_base.h', 'ngx_rt_shared.h'],
        ['ngx_rt_log.c', 'ngx_rt_worker.h'], ['ngx_rt_log.c', 'ngx_event.h'],
        ['ngx_rt_hub.c', 'ngx_rt_source.h'], ['ngx_rt_hub.c', 'ngx_http.h'],
        ['ngx_rt_feeder.c', 'ngx_http_rt.h'],
        ['ngx_rt_feeder.c', 'ngx_http.h'],
        ['ngx_http_rt_poll.c', 'ngx_rt_source.h'],
        ['ngx_http_rt_poll.c', 'hiredis/hiredis.h'])],
    [], 'which would be seen');

my $config = slurp(root() . '/config');
is_deeply([sort map { s{.*/}{}r } $config =~ m{\$ngx_rt_dir/(\S+\.[ch])}g],
    [sort keys %text], 'config has all files too');


# each shared struct has a contract: who writes it, who reads it, what a
# killed worker leaves

my $contracts = 0;
for my $header (@headers) {
    for my $name ($text{$header} =~ /^\} (\w+_sh_t);/gm) {
        my ($comment) = $text{$header} =~ m{
            /\* ( (?: (?!\*/) . )*+ ) \*/ \s*
            typedef\ struct\ \{ [^{}]* \}\ \Q$name\E; }xs;
        $comment = ($comment // '') =~ s/\n \* ?/ /gr;
        $contracts++;
        like($comment, qr/\bwrit(?:ten|es|ers?)\b/i, "$name: who writes it");
        like($comment, qr/\bread(?:s|ers?)?\b/i, 'who reads it');
        like($comment, qr/\bkilled\b|\bcrash/, 'what a crash leaves');
    }
}
cmp_ok($contracts, '>=', 5, 'there are shared structs');
is_deeply([map { $text{$_} =~ /^(?:typedef )?struct (\w+_sh_s)/gm } @headers],
    [], 'all of them typedefs');


# Each function of a header is in a paragraph that begins with a comment, or
# has one behind it.

sub silent ($text) {
    my @names;
    $text =~ s{/\*(.*?)\*/}{'/*' . $1 =~ tr/\n/ /r . '*/'}gse;
    for my $paragraph (split /\n{2,}/, $text) {
        next if $paragraph =~ m{^\s*/\*} && $paragraph =~ /\*\/\n/;
        my $flat = $paragraph =~ s/,\n\s+/, /gr;
        for my $line (split /\n/, $flat) {
            push @names, $1 if $line =~ /^[a-z].*?\b(ngx_\w+)\(.*\);\s*$/
                && $line !~ /^typedef/;
        }
    }
    return @names;
}
is_deeply([silent("/* a */\n\nint ngx_a(int b,\n    int c);\n\n/* b */\n"
    . "int ngx_b(void);\nint *ngx_c(void);\n\nint ngx_d(void);   /* d */\n")],
    ['ngx_a'], 'a function without a comment is seen');
my @prototypes = map { $text{$_} =~ /^[a-z].*\bngx_\w+\(/gm } @headers;
cmp_ok(@prototypes, '>', 100, 'there are functions');
is_deeply([map { silent($text{$_}) } @headers], [],
    'each function of a header has a comment');


# README.md's reference: every directive where it may stand, with the default
# that the code has.

my $readme = slurp(root() . '/README.md');
my ($reference) = $readme =~ /^## Directives\n(.*?)^## /ms;
my %section = map { /\A(.*)\n/ ? ($1 => $_) : () } split /^### /m, $reference;

# the rows of a section: name => default's cell
sub rows ($section) {
    my %rows;
    for my $line (grep { /^\| `/ } split /\n/, $section // '') {
        my (undef, $names, @cells) = split /(?<!\\)\|/, $line;
        my $default = @cells > 1 ? $cells[0] =~ s/^\s+|\s+$//gr : '';
        $rows{$_} = $default
            for $names =~ /^ `(\w+)/g, $names =~ /, `(\w+)/g;
    }
    return \%rows;
}

sub commands ($file, $table) {
    my ($body) = $text{$file} =~ /^static\s+ngx_command_t\s+
        \Q$table\E\[\]\s=\s\{\n (.*?) ^\};/msx;
    return map { /ngx_string\("(\w+)"\),\s*([\w|]+),\s*(\w+),\s*(\w+),\s*
            (?:offsetof\(\w+,\s*(\w+)\)|0),\s*(?:&(\w+)|NULL)/x
        ? { name => $1, type => $2, field => $5, post => $6 } : () }
        split /\n\n/, $body;
}

my @block = commands('ngx_http_rt_conf.c', 'ngx_http_rt_hub_commands');
my @other = commands('ngx_http_rt_module.c', 'ngx_http_rt_commands');
cmp_ok(@block, '>=', 14, 'the directives of the block');
cmp_ok(@other, '>=', 16, 'and all others');

my ($hub) = grep { /^rt_hub / } keys %section;
my ($handlers, $settings) = ('In a location', 'In http, server, location');
is_deeply([sort keys %{rows($section{$hub // ''})}],
    [sort map { $_->{name} } @block], 'README.md: rt_hub\'s block');
like($section{$hub // ''}, qr/^Context: http\./m, 'README.md: where rt_hub is');
for ([$handlers, 'NGX_HTTP_RT_HANDLER_CONF'],
     [$settings, 'NGX_HTTP_RT_ANY_CONF']) {
    my ($name, $type) = @$_;
    is_deeply([sort keys %{rows($section{$name})}],
        [sort map { $_->{name} } grep { $_->{type} =~ /^$type\b/
            && $_->{name} ne 'rt_hub' } @other], "README.md: $name");
}

# what the code has where nothing is said
my $source = join '', map { $text{$_} } grep { /_conf/ } sort keys %text;
my %value = $source =~ /ngx_conf_(?:init|merge)_\w*value\(\w+->(\w+),\s*
    (?:\w+->\w+,\s*)?([^;]+)\);/gx;

# those whose setter takes several values: fields and how they are shown
my %several = (
    redis_timeout    => ['%s %s', 'connect_timeout', 'reply_timeout'],
    redis_reconnect  => ['%s %s', 'reconnect_min', 'reconnect_max'],
    history          => ['%s %s', 'history', 'history_time'],
    rt_poll_interval => ['%s %s', 'poll_min', 'poll_max'],
    rt_advise        => ['viewers=%s interval=%s', 'advise_viewers',
                         'advise_interval'],
);
my %seconds = map { $_ => 1 } qw(poll_min poll_max inactive wait);
my %size = map { $_ => 1 } qw(size message_max buffer);
my %constant = reverse map { /ngx_string\("(\w+)"\), (NGX_\w+)/g }
    map { $text{$_} } qw(ngx_http_rt_conf.c ngx_http_rt_module.c);

sub shown ($field) {
    my $value = $value{$field} // return "no default of $field";
    return $constant{$value} // $value if $value =~ /^NGX_/;
    return "not a number: $value" if $value !~ /^[\d *]+$/;
    my $n = eval $value;
    if ($size{$field}) {
        return $n % 2 ** 20 ? $n / 2 ** 10 . 'k' : $n / 2 ** 20 . 'm';
    }
    return $n if $n == 0 || $field =~ /viewers|subscribers|^history$/;
    $n *= 1000 if $seconds{$field};
    return $n % 1000 ? "${n}ms" : $n % 60000 ? $n / 1000 . 's'
        : $n / 60000 . 'm';
}

my $defaults = 0;
for my $command (@block, @other) {
    my $name = $command->{name};
    my ($format, @fields) = @{$several{$name}
        // ['%s', $command->{field} // ()]};
    next if !@fields || $name eq 'source';  # decided by redis
    my ($told) = grep { defined } map { rows($section{$_ // ''})->{$name} }
        $hub, $settings;
    $told = ($told // '') =~ /^`([^`]*)`/ ? $1 : '';
    is($told, sprintf($format, map { shown($_) } @fields),
        "README.md: the default of $name");
    $defaults++;
}
cmp_ok($defaults, '>=', 17, 'there are defaults');

# every link to a file leads to one
for my $file (grep { /\.md$/ } @files) {
    my $from = $file =~ s{[^/]*$}{}r;
    my @links = slurp(root() . "/$file") =~ /\]\((?!#|\w+:)([^)#]+)/g;
    is_deeply([grep { !-e root() . "/$from$_" } @links], [],
        "$file: links lead to files");
}


# What may not stand in a file.  The words are put together here, so that this
# file may be looked at like all others.

my %never = (
    'a path of a machine' => qr{(?<![\w.\$\}\@-])/(?:work|root|home)/},
    'a registry'          => join('|', map { quotemeta join '.', @$_ }
        ['registry', 'npmjs'], ['proxy', 'golang'], ['pypi', 'org'],
        ['crates', 'io']),
    'work to do'          => '\b(?:' . join('|', map { join '', @$_ }
        ['TO', 'DO'], ['FIX', 'ME'], ['XX', 'X']) . ')\b',
    'a mirror'            => quotemeta join('.', 'deb', 'debian', 'org'),
    'a conflict'          => '^(?:<{7}|>{7}) ',
);
# where a Debian is made from nothing
my %allowed = ('a mirror' => qr{^t/85-docker\.t$});

sub found ($what, @names) {
    return grep { $_ !~ ($allowed{$what} // qr/(?!)/)
        && slurp(root() . "/$_") =~ /$never{$what}/m } @names;
}
my %bad = ('a path of a machine' => ' /' . 'work/x', 'a registry' =>
    'https://registry' . '.npmjs.org/', 'work to do' => '/* TO' . 'DO: */',
    'a mirror' => 'http://deb' . '.debian.org', 'a conflict' => '<' x 7 . ' a');
my @looked = grep { !m{^t/fuzz/corpus/} } @files;
for my $what (sort keys %never) {
    like($bad{$what}, qr/$never{$what}/m, "$what would be seen");
    is_deeply([found($what, @looked)], [], 'and stands nowhere');
}
my @locks = grep { m{(?:^|/)package-lock\.json$} } @files;
is_deeply([grep { slurp(root() . "/$_") =~ /"resolved"\s*:/ } @locks], [],
    'package-lock.json names no address');
is_deeply([grep { m{\.sh$|^\.ci/run$} && !-x root() . "/$_" } @files], [],
    'scripts can be run');

done_testing;
