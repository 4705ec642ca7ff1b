/** What recording.py has written: the dashboard's panels, and the answers to each. */

import { ConfigOverrideRule } from '@grafana/data';

export interface Series {
  name: string;
  times: number[];
  values: (number | null)[];
}

export interface Panel {
  id: number;
  type: 'row' | 'stat' | 'timeseries';
  title: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  fieldConfig?: { defaults: Record<string, unknown>; overrides: ConfigOverrideRule[] };
  options?: Record<string, any>;
}

export interface Recording {
  begin: number;
  end: number;
  panels: Panel[];
  series: Record<string, Series[]>;
}

declare global {
  interface Window {
    recording: Recording;
  }
}
