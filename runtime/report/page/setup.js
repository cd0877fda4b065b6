// Configuration and environment.

function facts(entries) {
  return html('dl', { class: 'facts' }, entries.filter(([, value]) => value !== undefined && value !== null).map(([name, value]) =>
    html('div', {}, html('dt', { text: name }), html('dd', { text: String(value) }))));
}

function startFacts(start) {
  const hosts = Array.isArray(start.hosts) ? start.hosts.filter(host => host !== null && typeof host === 'object') : [];
  return facts([
    ['Started', typeof start.started === 'string' ? start.started.replace('T', ' ').replace('Z', ' UTC') : undefined],
    ['At step', start.step], ['Ranks', start.ranks],
    ['Nodes', Array.isArray(start.node_sizes) ? `${start.node_sizes.length} (${start.node_sizes.join(' + ')} ranks)` : undefined],
    ...hosts.map(host => ['Host', `${host.host}: ${host.ranks} ranks of ${host.threads_per_rank} threads, ${host.cores} cores, ${host.cpu}`]),
    ['Cartesian', `${start.version}, commit ${start.commit}`], ['Compiler', `${start.compiler}, ${start.build_type}`], ['MPI', start.mpi],
  ]);
}

function configTables(run) {
  const sections = new Map();
  for (const [key, value] of Object.entries(run.config)) {
    const dot = key.indexOf('.');
    const name = dot < 0 ? '' : key.slice(0, dot);
    if (!sections.has(name)) sections.set(name, []);
    sections.get(name).push([key.slice(dot + 1), value]);
  }
  return html('div', { class: 'config' }, [...sections].map(([name, entries]) => html('table', {},
    html('caption', { text: name ? `[${name}]` : 'top level' }),
    html('tbody', {}, entries.map(([key, value]) => html('tr', {}, html('th', { scope: 'row', text: key }), html('td', { text: value })))))));
}

function setupViews(run) {
  const starts = run.environment;
  return [
    html('details', { class: 'card' }, html('summary', {}, html('h3', { text: 'Environment' }),
      html('span', { class: 'muted', text: starts.length ? `${starts.length === 1 ? 'one start' : `${starts.length} starts`}, ${starts[starts.length - 1].ranks} ranks` : 'not recorded' })), starts.map(startFacts)),
    html('details', { class: 'card' }, html('summary', {}, html('h3', { text: 'Configuration' }), html('span', { class: 'muted', text: `${Object.keys(run.config).length} keys` })),
      configTables(run)),
  ];
}

function setupSection() {
  const part = section('setup', 'Configuration and environment', null, ofChosenRun(setupViews));
  const chooser = runChooser();
  if (chooser) part.querySelector('.section-head').append(chooser);
  return part;
}
